"""What computes: one digest of the code, the weights and the choices that shape an avatar.

Work that was kept under one fingerprint may be used by whoever has the same one, and by nobody
else: after an update of this package, a model or a setting it is another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent


def source_digest(folder: Path = PACKAGE_DIR) -> str:
    """Give the SHA-256 over the names and contents of all Python files of this package."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def fingerprint(weights: Sequence[str], choices: Mapping[str, object]) -> str:
    """Give the SHA-256 over the source, the weights' digests and the operator's choices.

    Args:
        weights: digests of all models, in any order.
        choices: JSON-able; what changes the outcome, no paths: those differ between machines.
    """
    facts = {"source": source_digest(), "weights": sorted(weights), "choices": dict(choices)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
