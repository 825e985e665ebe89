"""A worker with two engines, as on a machine with two GPUs; the engines are the tests' fakes."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartWorker, until_ready
from tests.producer import Producer
from worker import lifecycle


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(base: dict[str, str], _device: str, _gpus: str) -> list[dict[str, str]]:
        return [dict(base), dict(base)]

    monkeypatch.setattr(lifecycle, "child_environments", two)


async def until_file(path: Path) -> None:
    async with asyncio.timeout(10):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.01)


async def test_two_jobs_run_side_by_side(
    start_worker: StartWorker, producer: Producer, tmp_path: Path
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        gates = [tmp_path / "one", tmp_path / "two"]
        jobs = [await producer.add(producer.payload(f"hold-fit:{gate}")) for gate in gates]
        for gate in gates:
            await until_file(gate.with_name(f"{gate.name}.reached"))
        async with httpx.AsyncClient() as client:
            told = (await client.get(f"http://127.0.0.1:{worker.http.port}/v1/ping")).json()
        assert (told["activeJobs"], told["maxConcurrentJobs"]) == (2, 2)
        for gate in gates:
            gate.touch()
        for job in jobs:
            assert await (await producer.settled(job)).getState() == "completed"


async def test_an_engine_in_trouble_does_not_stop_the_other(
    start_worker: StartWorker, producer: Producer, tmp_path: Path
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        gate = tmp_path / "gate"
        held = await producer.add(producer.payload(f"hold-fit:{gate}"))
        await until_file(tmp_path / "gate.reached")
        idle = next(one for one in worker.engine.engines if one.state.value == "READY")
        assert idle.pid is not None
        os.kill(idle.pid, signal.SIGKILL)
        gate.touch()
        settled = await producer.settled(held)
        assert (await settled.getState(), settled.attemptsMade) == ("completed", 1)
        again = await producer.settled(await producer.add(producer.payload("ok")))
        assert await again.getState() == "completed"
