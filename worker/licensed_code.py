"""Which code of vendors is here: without any, this worker is the free default's, and says so.

The image's own record says name and commit; without an image, the folders that the variables name
are looked at.  Whether that code can run is not asked here: the engine says that when it loads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from worker.settings import ModelSettings

RECORD: Final = Path("/app/vendors.json")
"""Written by docker/vendors.py when the image was built."""
COMMIT_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class VendorCode:
    """One vendor's code that is here.

    Attributes:
        name: as vendors.toml has it.
        commit: that it was verified to be at when the image was built; None: nobody verified it.
    """

    name: str
    commit: str | None = None

    def __str__(self) -> str:
        """`sam2 2b90b9f5ceec`."""
        commit = self.commit[:COMMIT_DIGITS] if self.commit else "(commit not verified)"
        return f"{self.name} {commit}"


def licensed_code(models: ModelSettings, record: Path = RECORD) -> tuple[VendorCode, ...]:
    """Say which code of vendors is here.

    Args:
        models: names the folders.
        record: the image's; a worker outside an image has none.
    """
    try:
        built: list[dict[str, Any]] = json.loads(record.read_bytes())
    except (OSError, ValueError):
        packages = {
            "PIXIE": models.pixie_dir / "pixielib",
            "sam-3d-body": models.sam3d_repo_dir / "sam_3d_body",
            "sam2": models.sam3d_segmentor / "sam2",
        }
        return tuple(VendorCode(name) for name, folder in packages.items() if folder.is_dir())
    return tuple(VendorCode(entry["name"], entry["commit"]) for entry in built)


def describe(code: tuple[VendorCode, ...]) -> str:
    """Name them in a line: for the log, the status page and `doctor`."""
    return ", ".join(map(str, code)) or "none: this is the free default alone"
