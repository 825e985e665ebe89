"""`avatar-worker bench [NAME] …`: one line a benchmark; without a name, the fit.

A benchmark is a module with a `main()` that reads its arguments from `sys.argv` and, given
`--json`, prints one JSON document on stdout and nothing else there.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout's own package

PROGRAM: Final = "avatar-worker bench"
DEFAULT: Final = "fit"
BENCHES: Final = {
    "fit": ("tests.benchmarks.run", "accuracy and speed of the fit, on cases of known truth"),
    "body": ("tests.benchmarks.body_bench", "the body module beside smplx, and its derivatives"),
    "consistency": (
        "tests.benchmarks.consistency",
        "mirrored, recompressed, cropped, smaller: what changes that should not",
    ),
    "queue": ("tests.benchmarks.queue_bench", "the consumer beside Node's Worker"),
    "speed": ("tests.benchmarks.speed", "how long a fit takes, where, and beside Adam"),
    "sync": ("tests.benchmarks.sync_bench", "models-sync beside s5cmd and rclone"),
}


def overview() -> str:
    """The benchmarks there are."""
    lines = [f"Usage: {PROGRAM} [NAME] [OPTIONS]   ({DEFAULT} when no name is given)", ""]
    lines += [f"  {name:11} {what}" for name, (_, what) in BENCHES.items()]
    return "\n".join([*lines, "", f"{PROGRAM} NAME --help shows its options."])


def main() -> None:
    """Hand over to the benchmark that is named first."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(overview())  # noqa: T201 - a command's help goes to stdout
        return
    name = DEFAULT
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    if name not in BENCHES:
        raise SystemExit(f"There is no benchmark {name!r}.\n\n{overview()}")
    sys.argv = [f"{PROGRAM} {name}", *arguments]
    importlib.import_module(BENCHES[name][0]).main()


if __name__ == "__main__":
    main()
