import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from worker.avatar.body.free import display_topology, free_body
from worker.avatar.export import Exported, ExportInputs, ExportOptions, write_outputs
from worker.avatar.export.documents import (
    measurements_document,
    quality_document,
    write_json,
)
from worker.avatar.export.dress import Part
from worker.avatar.export.glb import CLOTHES
from worker.avatar.export.preview import preview_png
from worker.avatar.export.skinned import skinned_body
from worker.avatar.export.writer import display_pose
from worker.avatar.types import (
    BodyFit,
    Confidence,
    DisplayPose,
    FittedView,
    Gender,
    Intrinsics,
    Observation,
    Photo,
    QualityReport,
    ViewName,
)
from worker.errors import ToolMissing

CAMERA = Intrinsics(400.0, 200, 300, known=False)
CONTRACT_FILES = ("avatar.glb", "measurements.json", "quality_report.json", "appearance.json")


def pose_in_photo() -> np.ndarray:
    pose = np.random.default_rng(2).normal(0, 0.1, (55, 3))
    pose[0] = (np.pi, 0.05, -0.1)  # the camera's y points down
    return pose


def fitted(*views: ViewName) -> BodyFit:
    return BodyFit(
        gender=Gender.FEMALE,
        betas=np.array([0.5, -0.5, 0.2]),
        covariance=np.eye(3),
        views=tuple(
            FittedView(view, CAMERA, pose_in_photo(), np.array([0, 0, 3.0]), 0.93456, 3.217)
            for view in views
        ),
        iterations=7,
    )


def inputs(*views: ViewName, warnings: tuple[str, ...] = ()) -> ExportInputs:
    body = np.zeros((300, 200), dtype=bool)
    body[30:280, 70:130] = True
    keypoints = np.full((23, 3), 0.5, dtype=np.float32)
    return ExportInputs(
        body=free_body(Gender.FEMALE),
        display=display_topology(),
        fit=fitted(*views),
        scale=1.01,
        photos=[
            Photo(view, np.full((300, 200, 3), (190, 150, 130), np.uint8), None) for view in views
        ],
        observations=[
            Observation(
                view,
                CAMERA,
                np.array([70, 30, 130, 280], dtype=np.float32),
                keypoints,
                body.astype(np.float32),
                source="a test",
            )
            for view in views
        ],
        coverage=dict.fromkeys(views, body),
        measurements_cm={"chestCm": 92.345678, "heightCm": 170.0},
        quality=QualityReport(Confidence.MEDIUM, warnings),
        facts={"estimator": "prior"},
    )


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass
class Published:
    """What one export of one photo left behind."""

    folder: Path
    done: Exported
    stages: list[float]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder, stages = tmp_path_factory.mktemp("avatar"), []
    done = write_outputs(folder, inputs(ViewName.FRONT), ExportOptions(), stages.append)
    return Published(folder, done, stages)


def test_one_photo_gives_the_contracts_files(published: Published) -> None:
    done = published.done
    assert sorted(done.files) == sorted(path.name for path in published.folder.iterdir())
    assert set(done.files) == {
        *CONTRACT_FILES,
        "preview.png",
        "mask_front.png",
        "overlay_front.png",
        "silhouette_targets.json",
    }
    assert set(read(published.folder / "appearance.json")) == {"skinColor", "sources"}
    assert published.stages == sorted(published.stages)
    assert published.stages[-1] == 1.0
    assert done.glb_bytes == (published.folder / "avatar.glb").stat().st_size < 2_000_000
    assert done.triangles <= 10_000


def test_what_shows_the_person_is_told_apart(tmp_path: Path) -> None:
    done = write_outputs(tmp_path, inputs(ViewName.FRONT, ViewName.SIDE), ExportOptions())
    assert done.inspection_files == {
        "mask_front.png",
        "mask_side.png",
        "overlay_front.png",
        "overlay_side.png",
        "silhouette_targets.json",
    }
    assert set(done.files) - done.inspection_files == {*CONTRACT_FILES, "preview.png"}


def test_the_documents_say_what_was_measured(tmp_path: Path) -> None:
    given = inputs(ViewName.FRONT, warnings=("Größe?",))
    write_json(tmp_path / "measurements.json", measurements_document(given.measurements_cm))
    write_json(tmp_path / "quality_report.json", quality_document(given.quality, given.fit))
    assert read(tmp_path / "measurements.json") == {"chestCm": 92.3, "heightCm": 170.0}
    assert read(tmp_path / "quality_report.json") == {
        "confidence": "medium",
        "warnings": ["Größe?"],
        "iou": {"front": 0.9346},
        "keypointRmsePx": {"front": 3.22},
    }


def test_the_targets_are_in_pixels_of_the_photo(published: Published) -> None:
    target = read(published.folder / "silhouette_targets.json")["views"]["front"]
    assert (target["width"], target["height"]) == (200, 300)
    outline = np.array(target["outlines"][0])
    np.testing.assert_allclose(outline.min(axis=0), [70, 30], atol=0.6)
    np.testing.assert_allclose(outline.max(axis=0), [130, 280], atol=0.6)
    assert target["keypoints"]["nose"] == [0.5, 0.5, 0.5]


def test_a_document_with_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"chestCm": float("nan")})


def test_no_warning_is_null_as_the_contract_has_it(published: Published) -> None:
    assert read(published.folder / "quality_report.json")["warnings"] is None


def test_the_glb_says_what_made_it(published: Published) -> None:
    data = (published.folder / "avatar.glb").read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    extras = json.loads(data[20 : 20 + length])["asset"]["extras"]
    assert extras["estimator"] == "prior"
    assert extras["displayPose"] == "apose"
    assert extras["bodyDigest"] == free_body(Gender.FEMALE).digest
    assert extras["measurementsCm"]["chestCm"] == 92.3


def test_a_required_tool_that_is_missing_stops_the_export(tmp_path: Path) -> None:
    options = ExportOptions(gltfpack_path=Path("/nowhere/gltfpack"), require_gltfpack=True)
    with pytest.raises(ToolMissing):
        write_outputs(tmp_path, inputs(ViewName.FRONT), options)


def test_display_poses() -> None:
    fit = fitted(ViewName.FRONT, ViewName.SIDE)
    assert not display_pose(ExportOptions(display_pose=DisplayPose.TPOSE), fit).any()
    lowered = display_pose(ExportOptions(arm_down_deg=40.0), fit)
    assert np.rad2deg(np.linalg.norm(lowered[16])) == pytest.approx(40.0)
    walking = display_pose(ExportOptions(display_pose=DisplayPose.PIXIE), fit)
    np.testing.assert_array_equal(walking[1:], pose_in_photo()[1:])
    np.testing.assert_array_equal(fit.views[0].pose, pose_in_photo())  # the fit is left alone


def test_the_photos_pose_is_shown_upright_leaning_as_it_did_and_facing_us() -> None:
    flip = Rotation.from_euler("x", np.pi)  # the camera's y points down, ours up
    leaning = Rotation.from_euler("z", 8, degrees=True)
    turned = Rotation.from_euler("y", 35, degrees=True)
    fit = fitted(ViewName.FRONT)
    fit.views[0].pose[0] = (flip * turned * leaning).as_rotvec()
    shown = display_pose(ExportOptions(display_pose=DisplayPose.PIXIE), fit)[0]
    np.testing.assert_allclose(shown, leaning.as_rotvec(), atol=1e-12)


def test_the_preview_shows_a_dressed_body_on_nothing() -> None:
    body = skinned_body(
        free_body(Gender.FEMALE),
        display_topology(),
        betas=np.zeros(3),
        pose=display_pose(ExportOptions(), fitted(ViewName.FRONT)),
    )
    colours = {**CLOTHES, Part.SKIN: (120, 200, 90)}  # no skin: found again without doubt
    picture = np.asarray(Image.open(io.BytesIO(preview_png(body, colours, views_deg=(0.0,)))))
    rows, columns, channels = picture.shape
    assert channels == 4
    assert not picture[0, :, 3].any()
    solid = picture[..., 3] == 255
    assert 0.1 < solid.mean() < 0.5
    tops = np.flatnonzero(solid.any(axis=1))
    assert 0.85 * rows < np.ptp(tops) < rows

    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    skin = solid & (green > red + 30) & (green > blue + 30)
    shirt = solid & (abs(red - blue) < 40) & (green > 120) & ~skin
    head, feet = slice(0, rows // 8), slice(7 * rows // 8, rows)
    middle = slice(columns // 2 - 20, columns // 2 + 20)
    assert skin[head].sum() > 100
    assert skin[feet].sum() > 100
    assert not skin[int(0.25 * rows) : int(0.45 * rows), middle].any()
    assert shirt[int(0.25 * rows) : int(0.35 * rows), middle].mean() > 0.9
    # Lit, not black, and brighter above than below.
    assert np.median(green[skin]) > 90
    # The body is as wide to the left as to the right: it faces the camera.
    widths = np.flatnonzero(solid.any(axis=0))
    assert abs(widths.min() + widths.max() - (columns - 1)) <= 4
