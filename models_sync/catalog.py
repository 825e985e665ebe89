"""What we know of the four sources beforehand: their files and under which terms they come.

The manifest in the bucket says it for what was published.  This is where it takes it from, and
what holds while there is none.  Terms: the publishers' own pages, as docs/reference/licences.md
lists them; a tag of one's own is spelled `LicenseRef-…`, as SPDX asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """One model's files."""

    prefix: str
    """Where they lie below MODEL_SYNC_PREFIX, and below MODEL_SYNC_LOCAL_ROOT."""
    licence: str
    required: tuple[str, ...]
    """What its code cannot start without, below `prefix`."""


CATALOG: Mapping[str, Source] = {
    "smplx": Source(
        "smplx/",
        "LicenseRef-SMPL-X",
        ("SMPLX_NEUTRAL.npz", "SMPLX_MALE.npz", "SMPLX_FEMALE.npz"),
    ),
    "pixie": Source(
        "pixie/",
        "LicenseRef-PIXIE",
        (
            "pixie_model.tar",
            "SMPLX_NEUTRAL_2020.npz",
            "smplx_extra_joints.yaml",
            "SMPLX_to_J14.pkl",
        ),
    ),
    "sam3d": Source(
        "sam3d/",
        "LicenseRef-SAM",
        ("model.ckpt", "model_config.yaml", "assets/mhr_model.pt"),
    ),
    "sam2": Source("sam2/checkpoints/", "Apache-2.0", ("sam2.1_hiera_large.pt",)),
}
"""Source → its files; the names of MODEL_SYNC_SOURCES."""


def source_of(key: str) -> str | None:
    """Which source a key belongs to; None: to none that we know."""
    for name, source in CATALOG.items():
        if key.startswith(source.prefix):
            return name
    return None


def required_by(key: str) -> tuple[str, ...]:
    """Which sources cannot work without the file `key`."""
    return tuple(
        name
        for name, source in CATALOG.items()
        if key.removeprefix(source.prefix) in source.required and key.startswith(source.prefix)
    )
