"""A worker with several GPUs runs as many jobs side by side, each on a GPU of its own."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.conftest import StartWorker, until_ready
from tests.producer import Producer
from worker.engine.supervisor import EngineState
from worker.errors import SettingsError

GPUS = ("GPU-11111111-aaaa-bbbb-cccc-000000000000", "GPU-22222222-aaaa-bbbb-cccc-000000000000")


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that knows two GPUs; real ones cannot be here."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    lines = [f"GPU {number}: Pretended (UUID: {uuid})" for number, uuid in enumerate(GPUS)]
    program.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
async def test_two_gpus_build_two_avatars_side_by_side(
    start_worker: StartWorker, producer: Producer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with start_worker() as worker:
        await until_ready(worker)
        assert worker.engine.size == 2
        payloads = [producer.payload(f"hold-fit:{gate}") for _ in range(2)]
        jobs = [await producer.add(payload) for payload in payloads]
        async with asyncio.timeout(20):
            while {engine.state for engine in worker.engine.engines} != {EngineState.BUSY}:  # noqa: ASYNC110 - the worker has the hook
                await asyncio.sleep(0.01)
        gate.touch()
        for job in jobs:
            done = await producer.settled(job)
            assert await done.getState() == "completed", done.failedReason
    markers = [json.loads(producer.read(payload["jobId"], "result.json")) for payload in payloads]
    assert {marker["sources"]["gpu"] for marker in markers} == set(GPUS)


@pytest.mark.usefixtures("two_gpus")
async def test_one_gpu_may_be_chosen(start_worker: StartWorker, producer: Producer) -> None:
    async with start_worker(WORKER_GPUS="1") as worker:
        await until_ready(worker)
        assert worker.engine.size == 1
        payload = producer.payload()
        await producer.settled(await producer.add(payload))
    assert json.loads(producer.read(payload["jobId"], "result.json"))["sources"]["gpu"] == GPUS[1]


@pytest.mark.usefixtures("two_gpus")
async def test_a_gpu_that_is_not_there_is_a_wrong_setting(start_worker: StartWorker) -> None:
    with pytest.raises(SettingsError, match="names GPU 2, but there are 2"):
        async with start_worker(WORKER_GPUS="2"):
            pass
