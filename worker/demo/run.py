"""`avatar-worker demo`: start everything, show it, and end it in order.

queue and storage  →  reference API with its page  →  worker  →  a person at the page,
                                                                 or the sample, once
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Never

import httpx
import platformdirs
from rich.console import Console
from rich.panel import Panel

from worker.demo.api import ApiConfig, create_api
from worker.demo.page import SAMPLE, page_routes
from worker.demo.sample import SamplePerson, comparison, run_sample, summary
from worker.demo.serve import HOST, ApiServer
from worker.demo.servers import Server, free_port
from worker.demo.stack import EmbeddedStack
from worker.demo.store import Store
from worker.errors import AvatarError, EngineCrashed

WORKER_START_SECONDS = 120.0
"""It loads torch and the models; a few seconds on an idle machine."""
WORKER_STOP_SECONDS = 15.0
SAMPLE_SECONDS = 300.0
"""PROCESSING_TIMEOUT's default."""
INTERRUPTED = 130
"""What a shell gives for Ctrl-C."""

say = Console(stderr=True)
"""For people; stdout carries only the sample's table and its line of JSON."""


class WorkerNotReady(AvatarError):
    """The worker cannot take jobs."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The running demo."""

    stack: EmbeddedStack
    api: ApiServer
    worker: Server
    status_url: str
    """The worker's own page."""


def run_demo(*, once: bool, data_dir: Path | None, port: int | None, open_browser: bool) -> int:
    """Run the whole product on this machine.

    Args:
        once: Run the sample person without a browser, print what came of it, and end.
        data_dir: Where data is kept; a temporary folder, removed at the end, when not given.
        port: The page's port; a free one when not given.
        open_browser: Open the page in a browser.

    Returns:
        The exit code: 0 after a finished sample, or when a person ended the demo.

    Raises:
        AvatarError: something did not start, ended on its own, or the sample failed.
    """
    try:
        with _ctrl_c_once(), started_demo(data_dir=data_dir, port=port) as demo:
            try:
                if once:
                    return _run_once(demo)
                _run_until_stopped(demo, open_browser=open_browser)
            except KeyboardInterrupt:
                say.print("Ending everything …")
                raise
            except AvatarError:
                say.print(f"The worker's last words:\n{demo.worker.log_tail()}", highlight=False)
                if demo.stack.keeps_data:
                    say.print(f"The whole log: {demo.worker.log}", highlight=False)
                raise
    except KeyboardInterrupt:
        # Being told to end is how the demo ends; a sample that was cut short is not finished.
        return INTERRUPTED if once else 0


@contextmanager
def started_demo(*, data_dir: Path | None = None, port: int | None = None) -> Iterator[Demo]:
    """Everything started and ready; everything ended, last started first, when the block is left.

    Raises:
        AvatarError: saying what did not start.
    """
    with ExitStack() as running, say.status("Starting the queue and the storage …") as status:
        stack = running.enter_context(EmbeddedStack(data_dir))
        store = Store(stack.data_dir / "api.sqlite")
        running.callback(store.close)
        token = secrets.token_urlsafe(24)
        api = running.enter_context(
            ApiServer(
                create_api(
                    ApiConfig(
                        redis_url=stack.redis_url,
                        storage=stack.minio(stack.api),
                        bucket=stack.bucket,
                        public_base_url=stack.s3_url,
                        token=token,
                    ),
                    store,
                    pages=page_routes(stack.s3_url),
                ),
                port,
            )
        )
        status.update("Starting the worker …")
        worker_port = free_port()
        worker = _worker(stack, api, token, worker_port)
        running.callback(worker.stop, timeout_s=WORKER_STOP_SECONDS)
        worker.spawn()
        worker.wait_ready(timeout_s=WORKER_START_SECONDS, poll_s=0.1)
        status.stop()
        yield Demo(stack, api, worker, f"http://{HOST}:{worker_port}/")


def _worker(stack: EmbeddedStack, api: ApiServer, token: str, port: int) -> Server:
    """`avatar-worker run` with the contract's variables, and nothing of our own environment."""
    jobs = stack.data_dir / "jobs"
    jobs.mkdir(exist_ok=True)

    def ready() -> bool:
        answer = httpx.get(f"http://{HOST}:{port}/ready", timeout=2)
        facts = answer.json()
        if facts.get("state") == "SETUP_FAILED":  # it stays up to say why, for ever if need be
            raise WorkerNotReady(str(facts.get("reason")), advice=facts.get("advice"))
        return answer.status_code == httpx.codes.OK

    return Server(
        "The worker",
        [sys.executable, "-m", "worker", "run"],
        ready=ready,
        log=stack.data_dir / "worker.log",
        env={
            "PATH": os.defpath,
            "HOME": str(Path.home()),
            "LANG": "C.UTF-8",
            "TMPDIR": str(jobs),  # so that a job that is cut off leaves nothing behind
            # Where `make setup` put the pose models, wherever this user's cache is.
            "XDG_CACHE_HOME": str(platformdirs.user_cache_path()),
            **stack.worker_environment(),
            "API_BASE_URL": api.url,
            "API_TOKEN": token,
            "PUBLISH_INSPECTION": "true",
            "WORKER_PORT": str(port),
        },
        error=WorkerNotReady,
    )


def _run_once(demo: Demo) -> int:
    person = SamplePerson.load(SAMPLE)
    with say.status("Measuring the sample person …") as status:
        outcome = run_sample(
            demo.api.url,
            person,
            on_progress=lambda percent: status.update(f"Measuring the sample person … {percent} %"),
            timeout_s=SAMPLE_SECONDS,
        )
    Console().print(comparison(outcome, person))
    sys.stdout.write(json.dumps(summary(outcome, person)) + "\n")
    sys.stdout.flush()
    return 0


def _run_until_stopped(demo: Demo, *, open_browser: bool) -> Never:
    say.print(
        Panel(
            f"[bold]{demo.api.url}[/bold]\n\n"
            "Drop a photo of a standing person, or try the sample person.\n"
            f"The worker's own page: {demo.status_url}\n"
            "Ctrl-C ends everything.",
            title="Your body, measured from a photo",
            title_align="left",
            expand=False,
            padding=(1, 3),
        )
    )
    say.print(f"The worker's log: {demo.worker.log}", highlight=False, soft_wrap=True)
    if demo.stack.keeps_data:
        say.print(f"Data is kept in {demo.stack.data_dir}", highlight=False, soft_wrap=True)
    if open_browser:
        _open(demo.api.url)
    servers = (demo.worker, demo.stack.gateway, demo.stack.valkey)
    while True:
        for server in servers:
            if not server.running:
                raise EngineCrashed(f"{server.name} ended on its own.")
        time.sleep(0.5)


def _open(url: str) -> None:
    """Open the page where there is a desktop to open it on."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser:  # that is lynx and its like, in our terminal
        browser.open(url)


@contextmanager
def _ctrl_c_once() -> Iterator[None]:
    """Take the first Ctrl-C or SIGTERM as "end in order" and no second one while we do."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # a handler's form
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
