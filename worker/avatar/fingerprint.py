"""What computes: one digest of the code, ours and vendors', the weights and the choices.

Work that was kept under one fingerprint may be used by whoever has the same one, and by nobody
else: after an update of this package, a vendor's checkout, a model or a setting it is
another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

PACKAGE_DIR = Path(__file__).resolve().parent
CODE: Final = frozenset({".py", ".yaml", ".json"})
"""Suffixes: a program, and the tables and configurations that networks are built from."""


def source_digest(folder: Path = PACKAGE_DIR) -> str:
    """Give the SHA-256 over the names and contents of all files of `CODE` below a folder."""
    digest = hashlib.sha256()
    folder = folder.resolve()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in CODE):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def fingerprint(
    weights: Sequence[str], choices: Mapping[str, object], vendors: Sequence[Path] = ()
) -> str:
    """Give the SHA-256 over the source, the weights' digests and the operator's choices.

    Vendors' code counts by its content, not by its commit: a checkout outside the image may be at
    any, or changed.

    Args:
        weights: digests of all models, in any order.
        choices: JSON-able; what changes the outcome, no paths: those differ between machines.
        vendors: folders of the code of vendors that is run.
    """
    facts = {
        "source": source_digest(),
        "vendors": sorted(source_digest(folder) for folder in vendors),
        "weights": sorted(weights),
        "choices": dict(choices),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
