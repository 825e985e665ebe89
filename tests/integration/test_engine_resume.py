"""What one process had computed, another goes on from, and the avatar is the same."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from worker.avatar.checkpoint import FILES
from worker.avatar.config import PipelineConfig
from worker.avatar.pipeline import Pipeline
from worker.avatar.types import AvatarRequest, AvatarResult, Gender, Stage
from worker.engine.messages import Built, EngineConfig, RunJob
from worker.engine.supervisor import Engine

SAMPLE = Path(__file__).resolve().parents[2] / "worker" / "demo" / "sample"
TRUTH = json.loads((SAMPLE / "truth.json").read_text())


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(PipelineConfig(device="cpu"))


def build(
    pipeline: Pipeline, folder: Path, **how: Any
) -> tuple[AvatarResult, list[tuple[Stage, tuple[str, ...]]]]:
    request = AvatarRequest(
        front=SAMPLE / "front.jpg",
        side=SAMPLE / "side.jpg",
        height_m=TRUTH["heightCm"] / 100,
        weight_kg=TRUTH["weightKg"],
        gender=Gender(TRUTH["gender"]),
    )
    kept: list[tuple[Stage, tuple[str, ...]]] = []
    result = pipeline.run(
        request,
        folder,
        lambda *_: None,
        checkpoint=lambda stage, files: kept.append((stage, files)),
        **how,
    )
    return result, kept


def test_the_pipeline_goes_on_from_what_is_there(pipeline: Pipeline, tmp_path: Path) -> None:
    expected, kept = build(pipeline, tmp_path)
    assert kept == [(stage, (name,)) for stage, name in FILES.items()]
    assert not set(FILES.values()) & set(expected.files)  # they are not published
    glb = (tmp_path / "avatar.glb").read_bytes()

    seen_again, kept = build(pipeline, tmp_path, resume=("observe",))
    assert [stage for stage, _ in kept] == [Stage.FIT]
    assert seen_again.measurements_cm == pytest.approx(expected.measurements_cm, abs=0.01)

    cheaper, kept = build(pipeline, tmp_path, resume=("observe", "fit"), economy=True)
    # What was seen in the full photos does not fit smaller ones: it is made again.
    assert [stage for stage, _ in kept] == [Stage.OBSERVE, Stage.FIT]
    assert "lack of memory" in cheaper.sources["economy"]
    assert "economy" not in expected.sources
    # Measured: 1.2 cm at the sleeve, at most 0.5 cm elsewhere.
    assert cheaper.measurements_cm == pytest.approx(expected.measurements_cm, abs=2.5)
    assert (tmp_path / "avatar.glb").read_bytes() != glb


async def test_a_killed_process_leaves_what_the_next_one_needs(tmp_path: Path) -> None:
    """The real engine: one avatar without a break, one whose process dies after the fit."""

    def job(name: str) -> RunJob:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(SAMPLE / "front.jpg", folder / "photo_front")
        height_m = TRUTH["heightCm"] / 100
        return RunJob(job_id="j", folder=str(folder), front="photo_front", height_m=height_m)

    def start(task: RunJob, *, until: str | None = None) -> asyncio.Task[Built]:
        def keep(stage: str, _files: tuple[str, ...]) -> None:
            kept.append(stage)
            if stage == until:
                running.cancel()

        running = asyncio.create_task(
            engine.run(task, lambda *_: None, timeout_s=100, checkpoint=keep)
        )
        return running

    kept: list[str] = []
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    engine = Engine(EngineConfig(device="cpu"), environment=environment)
    engine.start()
    try:
        expected = await start(job("whole"))
        first, torn = engine.pid, job("torn")
        with pytest.raises(asyncio.CancelledError):
            await start(torn, until="fit")
        assert kept == ["observe", "fit"] * 2
        built = await start(torn.model_copy(update={"resume": ("observe", "fit")}))
        assert engine.pid != first
        assert kept == ["observe", "fit"] * 2  # nothing was computed again
    finally:
        await engine.stop()

    assert built.measurements_cm == expected.measurements_cm
    assert (built.view_iou, built.warnings) == (expected.view_iou, expected.warnings)
    for name in ("avatar.glb", "measurements.json"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
