"""structlog for the whole process: JSON off a terminal, pretty on one, secrets struck out.

Lines of the standard library's loggers and Python's warnings come out the same way.  Values bound
with `structlog.contextvars` (job_id, attempt, stage) are on every line of that job.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

STRUCK_OUT = "[secret]"

_NOISY = ("httpx", "httpcore", "urllib3", "asyncio", "uvicorn")
"""These tell at INFO what our own lines already say."""


class Redaction:
    """Replaces known secret values wherever they occur in a line, however deep."""

    def __init__(self, secrets: Collection[str]) -> None:
        # The longest first, so that a URL is struck out whole before the password inside it.
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Return the line without secrets."""
        return {key: self.clean(value) for key, value in event.items()}

    def clean(self, value: Any) -> Any:
        """Return `value` with every secret struck out."""
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, STRUCK_OUT)
            return value
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.clean(item) for item in value)
        if isinstance(value, BaseException):
            return self.clean(repr(value))
        return value


def configure_logging(
    secrets: Collection[str] = (),
    *,
    stream: TextIO | None = None,
    pretty: bool | None = None,
    level: int = logging.INFO,
) -> None:
    """Set up logging for this process; call it once, before anything is logged.

    Args:
        secrets: values that must never appear.
        stream: where lines go; stderr when not given.
        pretty: colours for people, or JSON for machines; by default, whether it is a terminal.
        level: the least level that is written.
    """
    out = sys.stderr if stream is None else stream
    for_people = out.isatty() if pretty is None else pretty
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        Redaction(secrets),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if for_people
        else structlog.processors.JSONRenderer(default=str)
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
