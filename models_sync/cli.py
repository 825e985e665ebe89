"""`models-sync`: where it begins and how it ends.

A plain `pull` is what each start of a pod and `make sync-models` run: it goes past typer, which
takes 0.08 s of processor to be imported and to lay out eleven verbs, while nothing is fetched
(docs/decisions/0024).  Everything else, a `pull` with any other word too, goes through it.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final

from models_sync.console import report, wants_json
from models_sync.errors import SyncError

_PLAIN_PULLS: Final = (["pull"], ["pull", "--json"])


def main() -> None:
    """Run the command line; an error is a sentence, advice and an exit code, never a traceback."""
    try:
        _run()
    except KeyboardInterrupt:  # before the work began: see `console.stoppable`
        raise SystemExit(130) from None
    except BrokenPipeError:  # who read what we print has gone; Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    finally:
        # The process ends: a last search for cycles would take 40 ms to free what ends with it.
        gc.freeze()


def _run() -> None:
    try:
        if sys.argv[1:] in _PLAIN_PULLS:
            from models_sync.cli_pull import pull

            pull(as_json=wants_json())
            sys.exit(0)
        from models_sync.cli_verbs import app

        app()
    except SyncError as error:
        report(error, as_json=wants_json())
        raise SystemExit(error.exit_code) from None
