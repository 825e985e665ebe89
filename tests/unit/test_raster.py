import pytest
import torch

from worker.avatar import raster
from worker.avatar.raster import coverage, layers, rasterise

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def disc(segments: int, radius: float, centre: tuple[float, float]) -> tuple[torch.Tensor, ...]:
    angle = torch.linspace(0, 2 * torch.pi, segments + 1)[:-1]
    rim = torch.stack((angle.cos(), angle.sin()), dim=1) * radius
    uv = torch.cat((torch.zeros(1, 2), rim)) + torch.tensor(centre)
    i = torch.arange(segments)
    return uv, torch.stack((torch.zeros_like(i), i + 1, (i + 1) % segments + 1), dim=1)


def test_a_disc_covers_its_area_whatever_the_size_of_its_triangles() -> None:
    for segments in (12, 400):
        uv, faces = disc(segments, 40.0, (60.3, 50.7))
        area = 0.5 * segments * 40.0**2 * torch.sin(torch.tensor(2 * torch.pi / segments))
        assert abs(coverage(uv, faces, 110, 120).sum() - area) / area < 0.01


def test_the_disc_is_covered_where_it_is() -> None:
    uv, faces = disc(200, 20.0, (30.0, 70.0))
    rows, columns = torch.nonzero(coverage(uv, faces, 100, 100), as_tuple=True)
    assert abs(float(columns.float().mean()) + 0.5 - 30.0) < 0.1
    assert abs(float(rows.float().mean()) + 0.5 - 70.0) < 0.1


def test_what_lies_outside_the_image_is_left_out() -> None:
    uv, faces = disc(50, 30.0, (0.0, 0.0))
    quarter = coverage(uv, faces, 64, 64)
    assert abs(float(quarter.sum()) - torch.pi * 30**2 / 4) < 20
    assert not coverage(uv - 100, faces, 64, 64).any()


def test_the_nearest_face_wins_and_depth_is_interpolated_in_perspective() -> None:
    for device in DEVICES:
        square = torch.tensor([[0.0, 0.0], [64.0, 0.0], [64.0, 64.0], [0.0, 64.0]])
        uv = torch.cat((square, square)).to(device)
        # A wall at 3 m, and a slope from 2 m (left) to 6 m (right) that goes through it.
        depth = torch.tensor([3.0, 3, 3, 3, 2, 6, 6, 2], device=device)
        faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], device=device)
        seen = rasterise(uv, depth, faces, 64, 64)
        assert (seen.face_index >= 0).all()
        across = (torch.arange(64, device=device) + 0.5) / 64
        slope = 1 / ((1 - across) / 2 + across / 6)
        expected = torch.minimum(slope, torch.tensor(3.0, device=device)).expand(64, 64)
        torch.testing.assert_close(seen.depth, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(seen.bary.sum(-1), torch.ones(64, 64, device=device))


def test_triangles_that_reach_behind_the_camera_are_left_out() -> None:
    uv = torch.tensor([[0.0, 0.0], [64.0, 0.0], [0.0, 64.0]])
    seen = rasterise(uv, torch.tensor([1.0, 1.0, -1.0]), torch.tensor([[0, 1, 2]]), 64, 64)
    assert (seen.face_index == -1).all()
    assert torch.isinf(seen.depth).all()


def triangles(count: int, size: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.rand(count, 1, 2, generator=generator) * 80
    corners = middle + size * torch.randn(count, 3, 2, generator=generator)
    return corners.view(-1, 2), torch.arange(3 * count).view(count, 3)


def test_what_is_covered_is_where_a_face_is_seen() -> None:
    for device in DEVICES:
        for size in (0.5, 4.0, 60.0):
            uv, faces = (part.to(device) for part in triangles(40, size, seed=int(size)))
            seen = rasterise(uv, torch.ones(len(uv), device=device), faces, 70, 90).face_index >= 0
            assert torch.equal(coverage(uv, faces, 70, 90), seen)
            assert seen.any()


def test_a_centre_on_an_edge_is_covered_by_one_of_two_neighbours() -> None:
    uv = torch.tensor([[1.5, 1.5], [6.5, 1.5], [6.5, 4.5], [1.5, 4.5]])
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[1:4, 1:6] = True
    halves = [coverage(uv, torch.tensor([half]), 7, 9) for half in ([0, 1, 2], [2, 3, 0])]
    assert torch.equal(halves[0] ^ halves[1], expected)
    assert torch.equal(coverage(uv, torch.tensor([[0, 1, 2], [2, 0, 3]]), 7, 9), expected)


def test_a_surface_lies_on_a_point_as_often_as_its_border_runs_around_it() -> None:
    first, second = (disc(40, radius, (30.2, 25.7)) for radius in (20.0, 9.0))
    counted = torch.zeros(50, 60, dtype=torch.int32)
    borders = []
    for uv, faces in (first, second):
        counted += coverage(uv, faces, 50, 60).to(torch.int32)
        borders.append((uv[faces[:, 1]], uv[faces[:, 2]]))
    start, end = (torch.cat(part) for part in zip(*borders, strict=True))
    assert torch.equal(layers(start, end, 50, 60), counted)
    assert torch.equal(layers(end, start, 50, 60), -counted)


def test_a_wild_projection_covers_no_less_when_it_is_cut_into_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uv, faces = triangles(200, 30.0, seed=7)
    whole = coverage(uv, faces, 70, 90)
    monkeypatch.setattr(raster, "_CROSSINGS_AT_ONCE", 64)
    assert torch.equal(coverage(uv, faces, 70, 90), whole)


def test_a_corner_behind_the_camera_and_no_faces_cover_nothing() -> None:
    uv = torch.tensor([[0.0, 0.0], [float("nan"), 64.0], [0.0, 64.0]])
    assert not coverage(uv, torch.tensor([[0, 1, 2]]), 64, 64).any()
    assert not coverage(uv, torch.zeros((0, 3), dtype=torch.int64), 64, 64).any()
