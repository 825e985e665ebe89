"""`models-sync pull`: what a pod does at each start, so without typer (docs/decisions/0024)."""

from __future__ import annotations

from models_sync.console import print_json, say, shown, size_text, stoppable
from models_sync.settings import SyncSettings
from models_sync.transfer import pull as transfer


def pull(*, as_json: bool) -> None:
    """Fetch what is missing, show how far it is, and say what was done.

    Raises:
        SyncError: see `models_sync.transfer.pull`.
        SystemExit: stopped by a signal.
    """
    settings = SyncSettings.load()
    with stoppable() as cancel, shown() as show:
        pulled = transfer(settings, show, cancel)
    if as_json:
        print_json(pulled.as_dict())
        return
    say(
        f"{len(pulled.fetched)} files ({size_text(pulled.fetched_bytes)}) fetched in "
        f"{pulled.seconds:.1f} s, {len(pulled.present) + len(pulled.adopted)} were here already; "
        f"{settings.local_root} is complete ({pulled.trust})."
    )
