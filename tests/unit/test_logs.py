"""Logs: JSON or pretty, job and stage on every line, secrets on none."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from worker.errors import NoPerson
from worker.observability.logs import STRUCK_OUT, configure_logging, get_logger
from worker.observability.summary import JobSummary

SECRETS = {"hunter2secret", "redis://:hunter2secret@redis.example.com"}


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """A log of its own, with the process's logging put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(SECRETS, stream=stream, pretty=False)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_time_level_and_logger(out: io.StringIO) -> None:
    get_logger("worker.test").info("photo.read", bytes=5)
    (line,) = lines(out)
    assert line["event"] == "photo.read"
    assert line["bytes"] == 5
    assert (line["level"], line["logger"]) == ("info", "worker.test")
    assert line["timestamp"].endswith("Z")


def test_the_standard_library_and_warnings_go_the_same_way(out: io.StringIO) -> None:
    logging.getLogger("elsewhere").warning("with %s", "arguments")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    events = [line["event"] for line in lines(out)]
    assert events[0] == "with arguments"
    assert "UserWarning: old" in events[1]


def test_secrets_are_struck_out_wherever_they_are(out: io.StringIO) -> None:
    log = get_logger("worker.test")
    log.info(
        "hunter2secret", nested={"list": ["x hunter2secret y"]}, error=ValueError("hunter2secret")
    )
    logging.getLogger("elsewhere").error("url %s", "redis://:hunter2secret@redis.example.com")
    try:
        int("hunter2secret")
    except ValueError:
        log.exception("failed")
    text = out.getvalue()
    assert "hunter2secret" not in text
    assert text.count(STRUCK_OUT) >= 5


def test_on_a_terminal_lines_are_for_people() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging(stream=stream, pretty=True)
        get_logger("worker.test").info("photo.read", bytes=5)
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    assert "photo.read" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_job_and_stage_are_on_every_line_and_the_summary_is_one(out: io.StringIO) -> None:
    log = get_logger("worker.test")
    summary = JobSummary(attempt=2, queue_wait_s=1.25)
    with structlog.contextvars.bound_contextvars(job_id="cm3abc"):
        with summary.stage("download"):
            log.info("inside")
        summary.engine({"fit": 1.5})
        summary.failed("failed", NoPerson())
        summary.write()
    inside, last = lines(out)
    assert (inside["job_id"], inside["stage"]) == ("cm3abc", "download")
    assert last["event"] == "job"
    assert "stage" not in last
    assert (last["job_id"], last["outcome"], last["code"]) == ("cm3abc", "failed", "NO_PERSON")
    assert (last["attempt"], last["queue_wait_s"]) == (2, 1.25)
    assert last["stages_s"]["engine.fit"] == 1.5
    assert set(last["stages_s"]) == {"download", "engine.fit"}
