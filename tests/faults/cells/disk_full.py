"""The disk under the job's folder is full: a small tmpfs of the worker's own, really filled."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.pod import Pod, Spare
from tests.faults.site import Site

FAMILY: Final = "Disk full"
DISK_KB: Final = 512
PHOTO_BYTES: Final = 64 * 1024
"""What the job needs at least, so that a full disk is noticed."""


async def _pod(site: Site) -> tuple[Pod, Path]:
    """A worker with a disk of its own, and the disk as seen from here."""
    await site.clear_pods(none=True)
    disk = site.folder / f"disk-{len(site.all_pods)}"
    disk.mkdir(exist_ok=True)
    spare = await Spare.spawn(tmpfs_kb=DISK_KB, at=disk)
    pod = await site.pod(spare=spare, folder=disk)
    return pod, Path(f"/proc/{pod.process.pid}/root") / disk.relative_to("/")


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return ballast


async def while_reading(site: Site) -> Expected:
    """No room for the photo; then there is."""
    pod, disk = await _pod(site)
    job, point = await stages.DOWNLOAD.stop(site, pod, word=" " * PHOTO_BYTES, attempts=10)
    ballast = _fill(disk)
    point.release()
    await pod.logged("job")
    ballast.unlink()
    site.fault_over()
    return Expected(job)


async def while_computing(site: Site) -> Expected:
    """No room for what the engine writes; then there is."""
    pod, disk = await _pod(site)
    job, point = await stages.ENGINE[4].stop(site, pod, attempts=10)
    ballast = _fill(disk)
    point.release()
    await pod.logged("job")
    ballast.unlink()
    site.fault_over()
    return Expected(job)


async def for_good(site: Site) -> Expected:
    """It stays full: the job fails when its attempts are over, once."""
    pod, disk = await _pod(site)
    # Not before the job is there: Python chooses another folder for temporary files when the
    # first one that it asks for is full from the start.
    job, point = await stages.DOWNLOAD.stop(site, pod, word=" " * PHOTO_BYTES)
    _fill(disk)
    point.release()
    await site.settled(job)
    assert pod.alive
    return Expected(job, outcome="failed", reason="DISK_FULL")


CELLS: Final = (
    Cell(FAMILY, "no room, then room", "download", while_reading, alone=True),
    Cell(FAMILY, "no room, then room", "engine: export", while_computing, alone=True, quick=True),
    Cell(FAMILY, "no room for good", "download", for_good, alone=True),
)
