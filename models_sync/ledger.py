"""What we made in a folder, and of what: so that it is told from what others put there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from models_sync.atomic import replace_file

LEDGER_NAME = ".models-sync-made.json"


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was: size and time of its last change."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Take the stamp of a file, behind a link too."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns)


class Ledger:
    """`.models-sync-made.json` of one folder: copies and conversions, with their origin.

    A lost or damaged ledger makes our files look like an operator's: they are then left alone.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER_NAME

    def made(self, target: Path) -> bool:
        """Whether we made `target` and nobody has changed it since."""
        made, _ = self._entry(target)
        return made is not None and target.is_file() and Stamp.of(target) == made

    def made_from(self, target: Path, source: Path) -> bool:
        """Whether we made `target` of `source` as it is now."""
        _, origin = self._entry(target)
        return self.made(target) and source.is_file() and Stamp.of(source) == origin

    def record(self, target: Path, source: Path) -> None:
        """Remember that `target` was made of `source`, both as they are now.

        Raises:
            VolumeUnwritable: the folder cannot be written.
        """
        entries = self._read()
        entries[target.name] = {
            "made": asdict(Stamp.of(target)),
            "origin": asdict(Stamp.of(source)),
        }
        text = json.dumps(entries, indent=1, sort_keys=True)
        replace_file(self._path, lambda file: file.write(text.encode()))

    def _entry(self, target: Path) -> tuple[Stamp, Stamp] | tuple[None, None]:
        try:
            entry = self._read()[target.name]
            return Stamp(**entry["made"]), Stamp(**entry["origin"])
        except (TypeError, KeyError):
            return None, None

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
