"""The table: one fault, how the pull must end, and what must be true afterwards."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

from models_sync.errors import (
    AnswerStrange,
    BucketBusy,
    BucketRefused,
    ClockWrong,
    HostUnknown,
    ManifestInvalid,
    ManifestUntrusted,
    ObjectDamaged,
    ObjectMissing,
    SyncError,
    TransferCut,
    TransferStalled,
    UnsafeKey,
    VolumeFull,
)
from models_sync.manifest import MANIFEST_NAME
from tests.faults.sync import proxy as faults
from tests.faults.sync.proxy import Fault, Reply, Times
from tests.faults.sync.scene import LARGE, LARGE_BYTES, SMALL, Scene

HEALS_AFTER_S = 0.4
PATIENCE = {"PATIENCE_S": "10"}
"""Where a pull must end well: a busy machine takes more than 0.8 s for a few faults and a retry."""
UNHURRIED = {"STALL_S": "30", "PATIENCE_S": "30"}
"""Of a pull without a fault, which a busy machine may hold up for as long as it likes."""


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    name: str
    fault: Fault = faults.nothing
    ends: type[SyncError] | None = None
    """The error it must end with; None when it must end well."""
    manifest: bool = True
    arrange: Callable[[Scene], None] = lambda _: None
    around: Callable[[Scene], object] | None = None
    """A context manager around the pull."""
    nothing_asked: bool = False
    """Whether not one byte of an object may be asked for."""
    heals: bool = True
    """Whether a second pull, without the fault, must end well."""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def is_slow(self) -> bool:
        """Whether it waits for patience to end; `make faults` has the time."""
        return bool(self.ends) and issubclass(self.ends, TransferCut | TransferStalled | BucketBusy)


def run(cell: Cell, scene: Scene) -> list[str]:
    """Carry a cell out; what was wrong, in sentences."""
    scene.manifest = cell.manifest
    scene.publish(1)
    scene.pull(**UNHURRIED)  # the old good files
    scene.publish(2)
    cell.arrange(scene)
    asked = scene.proxy.asked
    scene.proxy.fault = cell.fault
    ended: SyncError | None = None
    try:
        with (cell.around or _plain)(scene):  # type: ignore[attr-defined]  # any context manager
            scene.pull(**(PATIENCE if cell.ends is None else {}) | cell.variables)
    except SyncError as error:
        ended = error
    wrong = scene.violations()
    if (type(ended) if ended else None) is not cell.ends:
        wrong.append(f"it ended with {_name(ended)} instead of {_name(cell.ends)}: {ended}")
    if ended is None and not scene.is_current():
        wrong.append("it ended well, and the files are not those that were published last")
    if ended is not None and any(scene.read(path) is None for path in (LARGE, SMALL)):
        wrong.append("an old good file is gone")
    if ended is not None and not (ended.message and ended.advice):
        wrong.append("the error says nothing")
    if cell.nothing_asked and scene.proxy.asked != asked:
        wrong.append("bytes were asked for")
    scene.proxy.heal()
    if cell.heals:
        try:
            scene.pull(**UNHURRIED)
        except SyncError as error:
            wrong.append(f"without the fault it ended with {_name(error)}: {error}")
        if not scene.is_current():
            wrong.append("without the fault the files are not those that were published last")
        wrong += [f"{name} was left behind" for name in scene.leftovers()]
    return wrong


@contextmanager
def _plain(_: Scene) -> Iterator[None]:
    yield


def _name(error: SyncError | type[SyncError] | None) -> str:
    if error is None:
        return "success"
    return (error if isinstance(error, type) else type(error)).__name__


# -- faults that need more than a proxy ---------------------------------------------------------
def _replaced_midway(scene: Scene, *, manifest: bool) -> Fault:
    """After the first answer, another version lies in the bucket."""
    done = threading.Lock()

    def fault(reply: Reply) -> None:
        if done.acquire(blocking=False):
            scene.publish(3, manifest=manifest)
        faults.nothing(reply)

    return fault


def replaced(*, manifest: bool) -> Callable[[Scene], object]:
    @contextmanager
    def around(scene: Scene) -> Iterator[None]:
        scene.proxy.fault = _replaced_midway(scene, manifest=manifest)
        yield

    return around


@contextmanager
def replaced_without_a_manifest(scene: Scene) -> Iterator[None]:
    """New bytes in the bucket while the manifest still names the old ones."""
    scene.proxy.fault = _replaced_midway(scene, manifest=False)
    try:
        yield
    finally:
        scene.put_manifest(scene.current)


@contextmanager
def back_after_a_while(scene: Scene) -> Iterator[None]:
    """Every connection is refused, until the server is back."""
    timer = threading.Timer(HEALS_AFTER_S, scene.proxy.heal)
    timer.start()
    yield
    timer.join()


def _no_dns(after: int, count: float) -> Callable[[Scene], object]:
    """Names stop resolving after so many look-ups, for so many; open connections are cut."""

    @contextmanager
    def around(scene: Scene) -> Iterator[None]:
        real, seen = socket.getaddrinfo, [0]

        def getaddrinfo(*args: object, **options: object) -> object:
            seen[0] += 1
            if after < seen[0] <= after + count:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return real(*args, **options)  # type: ignore[arg-type]  # passed on as it came

        with mock.patch("socket.getaddrinfo", getaddrinfo):
            yield

    return around


def _remove(scene: Scene) -> None:
    scene.remove(LARGE)


def _corrupt_manifest(scene: Scene) -> None:
    scene.proxy.rewrite = lambda path, body: b"{" if path.endswith(MANIFEST_NAME) else body


def _unsafe_listing(scene: Scene) -> None:
    scene.proxy.rewrite = lambda _, body: body.replace(
        b"sam3d/model.ckpt", b"sam3d/../../../etc/passwd"
    )


@contextmanager
def no_room(scene: Scene) -> Iterator[None]:
    """The file system has room for less than what is missing."""
    with mock.patch("models_sync.volume.free_bytes", return_value=LARGE_BYTES // 2):
        yield


@contextmanager
def no_blocks(scene: Scene) -> Iterator[None]:
    """The file system says that it has room, and then refuses the blocks (a quota)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE_BYTES // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


ONE = {"CONNECTIONS": "1"}
"""One connection, so that something is left to ask for after the first answer."""
PUBLIC_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"""Somebody else's."""

TABLE = (
    Cell("nothing"),
    Cell("nothing, no manifest", manifest=False),
    Cell("damaged on the way, once", Times(faults.damaged, count=1)),
    Cell("damaged on the way, always", faults.damaged, ObjectDamaged),
    Cell(
        "damaged, no manifest but an MD5",
        faults.damaged,
        ObjectDamaged,
        manifest=False,
    ),
    Cell("connection cut, some", Times(faults.cut, count=5)),
    Cell("connection cut, always", Times(faults.cut), TransferCut),
    Cell("connection reset, some", Times(faults.reset, count=5)),
    Cell("connection reset, always", Times(faults.reset), TransferCut),
    Cell("server away, back after a while", faults.reset, around=back_after_a_while),
    Cell("stalled, some", Times(faults.stalled, count=3)),
    Cell("stalled, always", faults.stalled, TransferStalled),
    Cell("silent, some", Times(faults.silent, count=3)),
    Cell("silent, always", faults.silent, TransferStalled),
    Cell("a byte now and then", faults.trickling, TransferStalled),
    Cell("503 SlowDown, some", Times(faults.refused("SlowDown"), count=6)),
    Cell("503 SlowDown, always", faults.refused("SlowDown"), BucketBusy),
    Cell("502 of a load balancer, some", Times(faults.bad_gateway, count=6)),
    Cell("502 of a load balancer, always", faults.bad_gateway, BucketBusy),
    Cell("403 key expired midway", Times(faults.refused("ExpiredToken"), skip=3), BucketRefused),
    Cell("403 clock skewed", faults.refused("RequestTimeTooSkewed"), ClockWrong),
    Cell("a login page", faults.login_page, AnswerStrange),
    Cell("Range ignored (200)", faults.whole_object, AnswerStrange),
    Cell("another range than asked for", faults.other_range, AnswerStrange),
    Cell("DNS lost at the start", ends=HostUnknown, around=_no_dns(0, float("inf"))),
    Cell(
        "DNS lost midway",
        Times(faults.cut),
        HostUnknown,
        around=_no_dns(6, float("inf")),
    ),
    Cell(
        "DNS lost for a moment",
        Times(faults.cut, count=8),
        around=_no_dns(6, 6),
    ),
    Cell(
        "replaced midway, no manifest",
        manifest=False,
        around=replaced(manifest=False),
        variables=ONE,
    ),
    Cell("replaced midway, published anew", around=replaced(manifest=True), variables=ONE),
    Cell(
        "replaced midway, not published",
        ends=ObjectDamaged,
        around=replaced_without_a_manifest,
        variables=ONE,
    ),
    Cell("gone from the bucket", ends=ObjectMissing, arrange=_remove, heals=False),
    Cell("manifest broken", ends=ManifestInvalid, arrange=_corrupt_manifest, nothing_asked=True),
    Cell(
        "manifest not signed by our key",
        ends=ManifestUntrusted,
        variables={"PUBLIC_KEY": PUBLIC_KEY},
        nothing_asked=True,
    ),
    Cell(
        "an object named to leave the folder",
        ends=UnsafeKey,
        manifest=False,
        arrange=_unsafe_listing,
        nothing_asked=True,
    ),
    Cell("disk full", ends=VolumeFull, around=no_room, nothing_asked=True),
    Cell("quota refuses the blocks", ends=VolumeFull, around=no_blocks, nothing_asked=True),
)
