"""A pod that cannot work is stopped through RunPod's API; here a fake of it, with its answers."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from worker import pod
from worker.errors import AvatarError, EngineUnavailable
from worker.pod import PodStopper

KEY = SecretStr("the-key-of-runpod")
UNFIT = EngineUnavailable("The driver is too old.")


class FakeRunPod:
    """What of RunPod's API is used: it answers a pod's stop, by the codes it is given."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.codes: list[int] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fake.asked.append((self.path, self.headers["authorization"]))
                self.send_response(fake.codes.pop(0) if fake.codes else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    fake = FakeRunPod()
    with fake.server:
        threading.Thread(target=fake.server.serve_forever, daemon=True).start()
        yield fake
        fake.server.shutdown()


async def test_a_pod_that_stays_unfit_is_stopped_once(runpod: FakeRunPod) -> None:
    stopper = PodStopper("pod1", KEY, after_s=0.05, api=runpod.url)
    async with asyncio.timeout(10):
        await stopper.watch(lambda: UNFIT, every_s=0.01)
    assert runpod.asked == [("/v1/pods/pod1/stop", "Bearer the-key-of-runpod")]


async def test_a_refusal_is_asked_again(
    runpod: FakeRunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "ASK_AGAIN_S", 0.05)
    runpod.codes = [401, 500]
    async with asyncio.timeout(10):
        await PodStopper("pod1", KEY, after_s=0.0, api=runpod.url).watch(
            lambda: UNFIT, every_s=0.01
        )
    assert len(runpod.asked) == 3


async def test_a_pod_that_recovers_in_time_is_left_alone(runpod: FakeRunPod) -> None:
    looks = iter([UNFIT, None] * 20)
    done = asyncio.Event()

    def unfit() -> AvatarError | None:
        try:
            return next(looks)
        except StopIteration:
            done.set()
            return None

    stopper = PodStopper("pod1", KEY, after_s=0.05, api=runpod.url)
    watching = asyncio.create_task(stopper.watch(unfit, every_s=0.01))
    async with asyncio.timeout(10):
        await done.wait()
    watching.cancel()
    assert runpod.asked == []


async def test_off_runpod_nothing_is_watched(runpod: FakeRunPod) -> None:
    async with asyncio.timeout(10):
        await PodStopper(None, KEY, after_s=0.0, api=runpod.url).watch(lambda: UNFIT)
    assert runpod.asked == []


async def test_without_a_key_it_is_said_that_nobody_stops_the_pod(runpod: FakeRunPod) -> None:
    with structlog.testing.capture_logs() as logged:
        async with asyncio.timeout(10):
            await PodStopper("pod1", None, after_s=0.0, api=runpod.url).watch(lambda: UNFIT)
    assert runpod.asked == []
    (line,) = logged
    assert line["event"] == "pod.unfit"
    assert "RUNPOD_API_KEY is not set" in line["advice"]
