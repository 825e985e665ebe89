"""Small parts of the worker: photo keys, percentages, messages, the cost of an import."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.fakes.engine import STAGES
from worker import errors
from worker.consumer.connection import client_name
from worker.contract import ProgressMark
from worker.engine.messages import (
    Advanced,
    Beat,
    Built,
    Checkpointed,
    EngineConfig,
    Failed,
    Ready,
    RunJob,
    from_engine,
    to_engine,
)
from worker.errors import AvatarError, EngineError, PhotoUrlForeign
from worker.progress import JobProgress, percent_of
from worker.storage.photos import photo_keys

BASE = "https://cdn.example.com"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/tryfitted/uploads/1-a.jpg", ("uploads/1-a.jpg",)),
        ("/tryfitted/uploads/1-a b#c?d.jpg", ("uploads/1-a b#c?d.jpg",)),
        ("/tryfitted/uploads/100%25.jpg", ("uploads/100%25.jpg", "uploads/100%.jpg")),
        ("/tryfitted/uploads/%2541", ("uploads/%2541", "uploads/%41")),
        ("/tryfitted/uploads/größe.jpg", ("uploads/größe.jpg",)),
        ("/s3/tryfitted/uploads/a.jpg", ("uploads/a.jpg",)),
        ("/tryfitted/uploads/tryfitted/a.jpg", ("uploads/tryfitted/a.jpg",)),
    ],
)
def test_the_key_is_all_after_the_bucket_then_the_same_decoded_once(
    path: str, keys: tuple[str, ...]
) -> None:
    assert photo_keys(BASE + path, "tryfitted") == keys


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.com/other/uploads/a.jpg",
        "https://tryfitted/uploads/a.jpg",
        "https://cdn.example.com/tryfitted/",
        "https://cdn.example.com/tryfitted",
        "https://cdn.example.com",
        "file:///tryfitted/uploads/a.jpg",
        "uploads/a.jpg",
        "",
    ],
)
def test_a_url_that_does_not_point_into_the_bucket_is_refused(url: str) -> None:
    with pytest.raises(PhotoUrlForeign):
        photo_keys(url, "tryfitted")


def test_stages_take_the_percentage_from_mark_to_mark() -> None:
    assert percent_of("photo", 0.0) == ProgressMark.PHOTOS_READ
    assert percent_of("fit", 1.0) == ProgressMark.BODY_FITTED
    assert percent_of("measure", 1.0) == ProgressMark.MEASURED
    assert percent_of("export", 1.0) == ProgressMark.OPTIMISED
    path = [percent_of(stage, step / 4) for stage in STAGES for step in range(5)]
    assert path == sorted(path)


async def test_every_mark_is_told_once_in_order_and_progress_never_falls() -> None:
    queue: list[int] = []
    api: list[int] = []

    async def to_queue(percent: int) -> None:
        queue.append(percent)

    async with JobProgress(to_queue, api.append) as progress:
        progress.reach(ProgressMark.ACCEPTED)
        progress.advance("fit", 1.0)  # jumps over PHOTOS_READ
        progress.advance("photo", 0.5)  # late
        progress.reach(55)
        progress.reach(ProgressMark.COMPLETED)
    assert queue == api == [10, 20, 40, 55, 60, 70, 85, 95, 100]


MESSAGES = [
    (
        EngineConfig(),
        (
            b'{"kind":"config","device":"auto","observer_models_dir":null,"display_pose":"apose",'
            b'"apose_arm_down_deg":25.0,"silhouette_refine":true,"silhouette_torso_erode_px":8,'
            b'"gltfpack_path":null,"require_gltfpack":false,"smplx_dir":null,"sam2_dir":null,'
            b'"sam2_required":true,"anthropometry_dir":null,"estimators":{"order":["sam3d_body",'
            b'"pixie"],"required":false,"pixie_dir":null,"sam3d_enabled":false,'
            b'"sam3d_repo_dir":null,"sam3d_checkpoint":null,"sam3d_mhr":null,'
            b'"sam3d_use_mask":true}}\n'
        ),
    ),
    (
        RunJob(job_id="j", folder="/tmp/x", front="photo_front", height_m=1.78),
        (
            b'{"kind":"run","job_id":"j","folder":"/tmp/x","front":"photo_front","side":null,'
            b'"height_m":1.78,"weight_kg":null,"gender":"neutral","resume":[],"economy":false}\n'
        ),
    ),
    (
        Ready(device_name="cpu", models=("m@1",), fingerprint="f"),
        (
            b'{"kind":"ready","device_name":"cpu","cuda":null,"models":["m@1"],"licensed":[],'
            b'"fingerprint":"f"}\n'
        ),
    ),
    (
        Beat(rss_bytes=4096, cuda_reserved_bytes=0),
        b'{"kind":"beat","rss_bytes":4096,"cuda_reserved_bytes":0}\n',
    ),
    (
        Checkpointed(stage="fit", files=("checkpoint_fit.npz",)),
        b'{"kind":"checkpointed","stage":"fit","files":["checkpoint_fit.npz"]}\n',
    ),
    (
        Advanced(stage="fit", fraction=0.5),
        b'{"kind":"advanced","stage":"fit","fraction":0.5}\n',
    ),
    (
        Built(
            files=("avatar.glb",),
            inspection_files=frozenset({"m.png"}),
            measurements_cm={"chestCm": 1.5},
            measurement_intervals_cm={"chestCm": (1.0, 2.0)},
            confidence="low",
            warnings=("w",),
            view_iou={"front": 0.9},
            stage_seconds={"fit": 1.0},
            sources={"body": "free"},
        ),
        (
            b'{"kind":"built","files":["avatar.glb"],"inspection_files":["m.png"],'
            b'"measurements_cm":{"chestCm":1.5},"measurement_intervals_cm":{"chestCm":[1.0,2.0]},'
            b'"confidence":"low","warnings":["w"],"view_iou":{"front":0.9},'
            b'"stage_seconds":{"fit":1.0},"sources":{"body":"free"}}\n'
        ),
    ),
    (
        Failed(code="NO_PERSON", message="m", advice="a", retryable=False),
        (
            b'{"kind":"failed","code":"NO_PERSON","message":"m","advice":"a","retryable":false,'
            b'"leaving":false}\n'
        ),
    ),
]


@pytest.mark.parametrize(("message", "line"), MESSAGES, ids=lambda value: type(value).__name__)
def test_every_message_between_the_processes_is_this_line(message: object, line: bytes) -> None:
    assert message.line() == line  # type: ignore[attr-defined]
    adapter = to_engine if isinstance(message, (EngineConfig, RunJob)) else from_engine
    assert adapter.validate_json(line) == message


def every_error() -> list[type[AvatarError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, AvatarError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_errors_cross_the_wall_as_what_they_were(kind: type[AvatarError]) -> None:
    sent = Failed.from_error(kind("what happened", advice="what to do"))
    line = from_engine.validate_json(sent.line())
    assert isinstance(line, Failed)
    error = line.to_error()
    assert type(error) is kind
    assert (error.message, error.advice) == ("what happened", "what to do")


def test_an_unknown_error_is_an_engine_error() -> None:
    error = Failed(code="NEW", message="m", advice="a", retryable=True).to_error()
    assert type(error) is EngineError
    assert "NEW" in error.message


def test_connections_are_named_as_node_names_them() -> None:
    assert client_name("bull", "avatar_build", "host:1") == "bull:YXZhdGFyX2J1aWxk:w:host:1"


def test_the_parent_starts_in_under_a_second_and_without_torch() -> None:
    code = (
        "import sys, worker.lifecycle; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'numpy', 'scipy', 'worker.avatar')))"
    )

    def start() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: it is what a start costs, whoever else uses this machine meanwhile.
        return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

    # The least of three: a neighbour on the same core makes every instruction slower.
    assert min(start() for _ in range(3)) < 1.0
