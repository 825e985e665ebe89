"""The card of the free body: which files lie beside it, and their digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from worker.avatar.body.free import CARD_NAME, DATA_DIR


def enter(path: Path) -> None:
    """Put a file's size and SHA-256 on the card."""
    card_path = DATA_DIR / CARD_NAME
    card = json.loads(card_path.read_text("utf-8"))
    card["files"][path.name] = {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    card_path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
