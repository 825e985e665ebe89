"""Test-only: run `avatar-worker run` with shorter times, the fake engine and a clock that can jump.

`python tests/faults/launch.py` waits for a line on stdin, so that a worker can be kept imported
and started in an instant; the line is a JSON object of environment variables.  Then it replaces
the constants of `FAULT_CONSTANTS`, a JSON object such as
`{"worker.consumer:LOCK_MS": 4000}`, in every module of the package that has them, and calls
`worker.cli.main`.  Production code has no knob for them: they belong together, and a worker with
other times than its siblings would take their jobs from them.

`FAULT_CLOCK` names a file with the seconds by which this process's wall clock is wrong: the
`time.time` of Python code and the time that minio-py signs with.  The monotonic clock is right,
as it is when NTP steps a machine.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

ENGINE = Path(__file__).absolute().parents[1] / "fakes" / "engine.py"


def replace_constants(values: dict[str, Any]) -> None:
    """Set each constant, `package:NAME`, wherever a module of the package has it.

    A constant that is a parameter's default is replaced there too; a list becomes the arguments
    of the constant's class.

    Raises:
        LookupError: no module has it; the tests are behind the code.
    """
    for place, value in values.items():
        package, _, name = place.partition(":")
        found = [module for module in _modules(package) if name in vars(module)]
        if not found:
            raise LookupError(f"no module of {package} has {name}")
        for module in found:
            old = getattr(module, name)
            new = type(old)(*value) if isinstance(value, list) else type(old)(value)
            setattr(module, name, new)
            for function in _functions(module):
                named = function.__kwdefaults__ or {}
                named.update({k: new for k, v in named.items() if v is old})
                placed = function.__defaults__ or ()
                function.__defaults__ = tuple(new if v is old else v for v in placed) or None


def _functions(module: ModuleType) -> list[FunctionType]:
    homes = [
        vars(module),
        *(vars(kind) for kind in vars(module).values() if isinstance(kind, type)),
    ]
    return [found for home in homes for found in home.values() if isinstance(found, FunctionType)]


def _modules(package: str) -> list[ModuleType]:
    home = importlib.import_module(package)
    names = [found.name for found in pkgutil.iter_modules(home.__path__)]
    return [home, *(importlib.import_module(f"{package}.{name}") for name in names)]


def make_clock_wrong(file: Path) -> None:
    """Add the seconds in `file` to this process's wall clock, whenever it is read."""
    import minio.time

    right, right_ns, right_utc = time.time, time.time_ns, minio.time.utcnow

    def offset_s() -> float:
        return float(file.read_text() or 0)

    time.time = lambda: right() + offset_s()
    time.time_ns = lambda: right_ns() + int(offset_s() * 1e9)
    minio.time.utcnow = lambda: right_utc() + timedelta(seconds=offset_s())


def main() -> None:
    """Import all that the worker needs, wait for the word, and run it."""
    # Not worker.lifecycle yet: other modules' constants are defaults of its functions.
    import bullmq  # noqa: F401
    import httpx  # noqa: F401
    import minio  # noqa: F401
    import starlette.applications  # noqa: F401
    import uvicorn  # noqa: F401

    import worker.cli
    import worker.engine.supervisor
    import worker.settings

    os.environ.update(json.loads(sys.stdin.readline()))
    os.environ["PYTHONUNBUFFERED"] = "1"
    worker.engine.supervisor.COMMAND = (sys.executable, str(ENGINE))  # type: ignore[misc]
    replace_constants(json.loads(os.environ.get("FAULT_CONSTANTS", "{}")))
    if clock := os.environ.get("FAULT_CLOCK"):
        make_clock_wrong(Path(clock))
    sys.argv = ["avatar-worker", "run"]
    worker.cli.main()


if __name__ == "__main__":
    main()
