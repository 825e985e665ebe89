# ruff: noqa: INP001 - a program of the Dockerfile, in no package
"""Put the vendors' code that the build context holds where the image wants it, and write down what.

    python3 docker/vendors.py --from vendors --root /out [--free]

Run by docker/Dockerfile.  Every checkout that is there must be at its pinned commit and unchanged,
or the build ends; what is not there, or needed by tests alone, is left out, and with none of them
the image is the free default's.  Only the paths of vendors.toml are copied, the licence among them;
no history.  `ROOT/app/vendors.json` says what was brought: the worker tells it on its status page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vendors.fetch import Vendor, VendorError, check, read_vendors

RECORD = Path("app/vendors.json")
NON_COMMERCIAL = "no"


def bring(vendors: Sequence[Vendor], source: Path, root: Path, *, free: bool) -> list[Vendor]:
    """Copy every vendor's code that lies in `source` below `root`; write the record.

    Args:
        vendors: the list.
        source: folder of the checkouts.
        root: stands for the image's `/`.
        free: leave out what a business may not use.

    Returns:
        Those that were brought.

    Raises:
        VendorError: a checkout is not what is pinned.
    """
    brought = []
    for vendor in vendors:
        folder = source / vendor.name
        if vendor.container is None or not folder.is_dir():
            continue
        if free and vendor.commercial == NON_COMMERCIAL:
            continue
        check(vendor, folder)
        target = root / vendor.container.lstrip("/")
        for path in vendor.paths:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            if (folder / path).is_dir():
                shutil.copytree(folder / path, target / path, ignore=_LEFTOVERS)
            else:
                shutil.copyfile(folder / path, target / path)
        brought.append(vendor)
    record = root / RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps([_entry(vendor) for vendor in brought], indent=2) + "\n")
    return brought


_LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.pyc")


def _entry(vendor: Vendor) -> dict[str, str | None]:
    return {
        "name": vendor.name,
        "commit": vendor.commit,
        "licence": vendor.licence,
        "folder": vendor.container,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the checkouts")
    parser.add_argument("--root", type=Path, required=True, help="stands for the image's /")
    parser.add_argument("--free", action="store_true", help="leave out what is non-commercial")
    options = parser.parse_args(arguments)
    try:
        brought = bring(
            read_vendors(options.source / "vendors.toml"),
            options.source,
            options.root,
            free=options.free,
        )
    except VendorError as error:
        print(f"✗ {error}", file=sys.stderr)  # noqa: T201 - a program's answer
        return 1
    names = ", ".join(f"{vendor.name} {vendor.commit[:12]}" for vendor in brought)
    said = names or "none; the image is the free default's"
    print(f"vendors' code: {said}")  # noqa: T201 - same
    return 0


if __name__ == "__main__":
    sys.exit(main())
