"""The outline that the fit finds on a posed body lies where its picture's outline lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.free import free_body
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.agreement import outline_iou
from worker.avatar.fit.camera import project
from worker.avatar.fit.evidence import Contour, features, gather
from worker.avatar.fit.outline import Outline, OutlineFinder, _edges, match
from worker.avatar.raster import coverage
from worker.avatar.types import Float64Array, Gender, Intrinsics, Observation, ViewName

FOCAL_PX, WIDTH, HEIGHT = 1100.0, 768, 1024
TRUNK = (0, 3, 6, 9)
"""Pelvis and spine."""


def _distances(gender: Gender, yaw_deg: float, seed: int) -> tuple[Float64Array, Float64Array]:
    """Of a random person's own outline from its mask's: all, and the trunk's, in pixels."""
    body = free_body(gender)
    shape = ArticulatedShape(body, 50).to(torch.device("cpu"))
    rng = np.random.default_rng(seed)
    local = priors.standing_pose(dtype=torch.float64, device=torch.device("cpu"))
    local[0] = rotation.about(0, 180.0, like=local) @ rotation.about(1, yaw_deg, like=local)
    for joint in priors.FITTED_JOINTS[1:]:
        local[joint] = local[joint] @ rotation.exp(torch.as_tensor(rng.normal(0, 0.08, 3)))
    betas = torch.as_tensor(rng.normal(0, 0.8, 50))
    turned = shape.global_rotations(local[None])
    here = shape.vertices(shape.posed(betas, turned, local.new_zeros((1, 3))))[0, :, 1]
    away = local.new_tensor([[0.0, -float(here.max() + here.min()) / 2, FOCAL_PX * 1.75 / 820]])
    posed = shape.posed(betas, turned, away)
    uv = project(
        shape.vertices(posed),
        local.new_tensor([FOCAL_PX]).log(),
        local.new_tensor([[WIDTH / 2, HEIGHT / 2]]),
    ).uv[0]
    mask = coverage(uv.float(), shape.faces, HEIGHT, WIDTH).numpy()
    observed = Observation(
        view=ViewName.FRONT,
        intrinsics=Intrinsics(FOCAL_PX, WIDTH, HEIGHT, known=True),
        box=np.array([0, 0, WIDTH, HEIGHT], dtype=np.float32),
        keypoints=np.concatenate(
            (body.keypoint_regressor @ uv.numpy(), np.ones((23, 1))), axis=1
        ).astype(np.float32),
        mask=mask.astype(np.float32),
        source="synthetic",
    )
    view = gather(observed)
    found = OutlineFinder(shape.faces).find(uv * view.scale)
    pairs = match(found, view.contour, 10.0)
    own = (uv * view.scale).numpy()[pairs.edges].mean(axis=1)
    apart = ((own - pairs.points) * pairs.normals).sum(axis=1)
    part = shape.weights[pairs.edges[:, 0]].argmax(dim=1).numpy()
    return apart, apart[np.isin(part, TRUNK)]


@pytest.mark.parametrize("yaw_deg", [0.0, 90.0], ids=["front", "profile"])
def test_a_posed_body_s_outline_is_that_of_its_mask(yaw_deg: float) -> None:
    # In profile one hip lies a pixel or two behind the other: counted as outline, it made every
    # fitted body fatter (0.4 px on the trunk, 0.6 cm of chest and waist from two clean views).
    people = [
        _distances(gender, yaw_deg, seed)
        for gender in (Gender.MALE, Gender.FEMALE)
        for seed in range(3)
    ]
    everywhere, trunk = (np.concatenate(parts) for parts in zip(*people, strict=True))
    assert len(trunk) > 200  # pairs of one edge are joined
    assert abs(everywhere.mean()) < 0.1
    assert abs(trunk.mean()) < 0.1


@pytest.mark.parametrize("missing", [0, 400], ids=["closed", "with a hole"])
def test_the_outline_is_what_no_face_covers_beyond(missing: int) -> None:
    # The finder counts layers by the border of what looks at the camera; here every face is
    # painted.  An operator's body may have holes, at the eyes for instance.
    body = free_body(Gender.MALE)
    faces = torch.tensor(body.faces)[missing:]
    seen = body.v_template @ np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]], dtype=np.float32)
    uv = torch.as_tensor(seen[:, :2] * np.array([400, -400]) + 450, dtype=torch.float64)
    found = OutlineFinder(faces).find(uv)
    assert len(found.edges) > 300
    probes = torch.as_tensor(found.points + 2.5 * found.normals)
    scale = 4
    painted = coverage((uv * scale).float(), faces, 1000 * scale, 1000 * scale)
    at = (probes * scale).long()
    # A probe speaks for a pixel of the finder's own raster, which is coarser.
    assert painted[at[:, 1], at[:, 0]].float().mean() < 0.02
    np.testing.assert_allclose(
        found.points, uv.numpy()[found.edges].mean(axis=1), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("missing", [0, 9000], ids=["closed", "with holes"])
def test_a_body_overlaps_its_own_picture_whatever_holes_it_has(missing: int) -> None:
    body = free_body(Gender.MALE)
    faces = torch.tensor(body.faces)
    if missing:  # most of what looks at the camera: the back is seen from inside
        looks = torch.as_tensor(body.v_template[body.faces].mean(axis=1)[:, 2]).argsort()
        faces = faces[looks[:-missing]]
    uv = body.v_template[:, :2] * np.array([400, -400]) + np.array([450, 500])
    painted = coverage(torch.as_tensor(uv).float(), faces, 1000, 900).numpy()
    view = gather(
        Observation(
            view=ViewName.FRONT,
            intrinsics=Intrinsics(FOCAL_PX, 900, 1000, known=True),
            box=np.array([0, 0, 900, 1000], dtype=np.float32),
            keypoints=np.concatenate(
                (body.keypoint_regressor @ uv, np.ones((23, 1))), axis=1
            ).astype(np.float32),
            mask=painted.astype(np.float32),
            source="synthetic",
        )
    )
    assert outline_iou(torch.as_tensor(uv) * view.scale, faces, view) > 0.98


def test_one_edge_more_leaves_the_other_pairs_as_they_are() -> None:
    def outline(angles: Float64Array) -> Outline:
        ends = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 100.0
        middle, along = (ends[1:] + ends[:-1]) / 2, ends[1:] - ends[:-1]
        length = np.linalg.norm(along, axis=1)
        normals = np.stack([along[:, 1], -along[:, 0]], axis=1) / length[:, None]
        edges = np.round(np.stack([angles[:-1], angles[1:]], axis=1) * 1e6).astype(np.int64)
        return Outline(edges, middle, normals, length)

    around = np.linspace(0.0, 2 * np.pi, 900)
    normals = np.stack([np.cos(around), np.sin(around)], axis=1)
    points = 103.0 * normals
    seen = Contour(points, normals, np.zeros(len(points)), cKDTree(features(points, normals)))
    angles = np.linspace(0.0, 2 * np.pi, 61)
    before = match(outline(angles), seen, 10.0)
    after = match(outline(np.insert(angles, 1, angles[1] / 3)), seen, 10.0)
    kept = {tuple(edge): row for row, edge in enumerate(after.edges.tolist())}
    same = [row for row, edge in enumerate(before.edges.tolist()) if tuple(edge) in kept]
    # But for the neighbours: what was nearest to them may be nearer to the new edge.
    same = [row for row in same if 0.3 < before.edges[row, 0] / 1e6 < 6.0]
    assert len(same) > 50
    there = [kept[tuple(before.edges[row])] for row in same]
    np.testing.assert_allclose(after.points[there], before.points[same], atol=1e-9)
    np.testing.assert_allclose(after.weight[there], before.weight[same], rtol=2e-3)
    assert before.weight.sum() == pytest.approx(2.0)


def test_a_pair_fades_with_distance_and_is_not_dropped() -> None:
    normals = np.tile([[1.0, 0.0]], (50, 1))
    points = np.stack([np.zeros(50), np.arange(50.0)], axis=1)
    seen = Contour(points, normals, np.zeros(50), cKDTree(features(points, normals)))

    def weight(apart_px: float) -> float:
        edges = np.arange(100, dtype=np.int64).reshape(50, 2)
        body = Outline(edges, points - [apart_px, 0.0], normals, np.ones(50))
        return float(match(body, seen, 10.0).weight.sum())

    assert weight(7.9) == pytest.approx(2.0)
    assert weight(10.0) == pytest.approx(1.0)
    assert weight(12.1) == 0.0
    assert abs(weight(9.0) - weight(9.01)) < 0.01


def test_an_edge_of_one_face_is_no_edge_between_two() -> None:
    ends, beside, forward = _edges(torch.tensor([[0, 1, 2], [2, 1, 3]]))
    assert ends.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert beside.tolist() == [[0, 0, 1, 1, 1], [2, 2, 0, 2, 2]]
    assert forward.tolist() == [True, False, False, True, False]
