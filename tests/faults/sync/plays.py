"""Faults of processes: killed, stopped, frozen, and several at once on one volume.

Each play gives what was wrong, in sentences.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest import mock

from models_sync.errors import ObjectDamaged, PartialLost
from models_sync.lock import LOCK_FILE
from models_sync.manifest import PART_BYTES as DEFAULT_PART_BYTES
from models_sync.progress import Phase, Progress
from models_sync.transfer import PullReport
from tests.faults.sync import proxy as faults
from tests.faults.sync.proxy import Reply
from tests.faults.sync.scene import LARGE, PART_BYTES, Scene

BYTES = 24 << 20
TWICE = 0.05
"""How much of a file may be fetched again after a kill."""
STALE_S = 3.0
"""Instead of 15 s: still longer than a beat."""
STOP_S = 2.0
"""How long SIGTERM may take: a spot instance is killed after five seconds."""


class Pull:
    """`models-sync pull --json` in a process of its own; holders are taken for dead early."""

    def __init__(self, scene: Scene, **variables: str) -> None:
        command = (
            f"import models_sync.lock as lock; lock.STALE_S = {STALE_S}; "
            "from models_sync.cli import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, "pull", "--json"],
            env=os.environ | scene.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    passed_before = 0
    """What had gone through the proxy when it began."""

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = 30) -> tuple[int, dict[str, Any], str]:
        """Exit code, the report, and what was said on stderr."""
        said, complained = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, json.loads(said) if said else {}, complained

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def half_way(scene: Scene, **variables: str) -> Iterator[Pull]:
    """A pull that has half of a large file; whatever it asks for now does not come."""
    scene.publish(1, size=1000)
    scene.pull()
    scene.publish(2, size=BYTES)
    before = scene.proxy.passed_bytes
    scene.proxy.allow(BYTES // 2)
    with Pull(scene, PATIENCE_S="60", STALL_S="60", **variables) as running:
        running.passed_before = before
        scene.proxy.wait_until_passed(BYTES // 2 - 4 * PART_BYTES)
        _until(lambda: _landed(scene) >= BYTES // 2 // PART_BYTES - 16, "half has landed")
        yield running


def _landed(scene: Scene) -> int:
    maps = [path.read_bytes() for path in scene.root.rglob(".models-sync-*.map")]
    return max(
        (sum(any(map_[at : at + 32]) for at in range(0, len(map_), 32)) for map_ in maps),
        default=0,
    )


def _until(condition: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def _finished(scene: Scene) -> list[str]:
    wrong = scene.violations()
    if not scene.is_current():
        wrong.append("the files are not those that were published last")
    return wrong + [f"{name} was left behind" for name in scene.leftovers()]


def _fetched_twice(scene: Scene, first_bytes: int, report: PullReport) -> list[str]:
    """Hold what both pulls received against what there is."""
    twice = first_bytes + report.received_bytes - sum(map(len, scene.current.values()))
    return [f"{twice:,} bytes were fetched twice"] if twice > TWICE * BYTES else []


# -- plays ----------------------------------------------------------------------------------------
def killed_half_way(scene: Scene) -> list[str]:
    """SIGKILL; the next pull goes on, and fetches at most 5 % twice."""
    with half_way(scene) as running:
        first_bytes = scene.proxy.passed_bytes - running.passed_before
        running.signal(signal.SIGKILL)
        running.end()
    wrong = [] if scene.read(LARGE) in scene.known[LARGE] else ["the old good file is gone"]
    scene.proxy.heal()
    report = scene.pull()
    if not report.resumed_bytes:
        wrong.append("nothing was gone on with")
    return wrong + _finished(scene) + _fetched_twice(scene, first_bytes, report)


def terminated(scene: Scene) -> list[str]:
    """SIGTERM while the server says nothing: ends in two seconds with 143, and is gone on with."""
    with half_way(scene) as running:
        first_bytes = scene.proxy.passed_bytes - running.passed_before
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        code, _, said = running.end()
        took = time.monotonic() - began
    wrong = [] if code == 143 else [f"it ended with {code}: {said}"]
    if took > STOP_S:
        wrong.append(f"it took {took:.1f} s to stop")
    if (scene.root / LOCK_FILE).exists():
        wrong.append("the lock was left behind")
    wrong += scene.violations()
    scene.proxy.heal()
    report = scene.pull()
    return wrong + _finished(scene) + _fetched_twice(scene, first_bytes, report)


def terminated_before_an_answer(scene: Scene) -> list[str]:
    """SIGTERM while not even headers come."""
    scene.publish(1)
    scene.proxy.fault = faults.silent
    with Pull(scene, STALL_S="60") as running:
        _until(lambda: scene.proxy.asked > 0, "it asks")
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        code, _, said = running.end()
        took = time.monotonic() - began
    wrong = [] if code == 143 else [f"it ended with {code}: {said}"]
    if took > STOP_S:
        wrong.append(f"it took {took:.1f} s to stop")
    scene.proxy.heal()
    scene.pull()
    return wrong + _finished(scene)


def one_pulls_the_other_waits(scene: Scene) -> list[str]:
    """Two pods on one volume: the second shows the first one's progress and fetches nothing."""
    seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        seen.append(progress)
        if progress.phase is Phase.WAITING and progress.done_bytes:
            scene.proxy.heal()

    with half_way(scene) as first:
        second = scene.pull(on_progress)
        code, report, said = first.end()
    wrong = [] if code == 0 else [f"the first ended with {code}: {said}"]
    if second.received_bytes or set(report["fetched"]) != set(scene.current):
        wrong.append(f"the second fetched {second.received_bytes:,} bytes")
    waiting = [progress for progress in seen if progress.phase is Phase.WAITING]
    if not any(progress.total_bytes and progress.waiting_for for progress in waiting):
        wrong.append("the second did not show how far the first was")
    return wrong + _finished(scene)


def no_lock_at_all(scene: Scene) -> list[str]:
    """The lock cannot be written: both pull at once, and the files are right."""
    scene.root.mkdir(parents=True)
    (scene.root / LOCK_FILE).mkdir()
    scene.publish(1, size=BYTES)
    scene.proxy.allow(BYTES // 2)
    with Pull(scene, PATIENCE_S="60") as one, Pull(scene, PATIENCE_S="60") as other:
        _until(lambda: len([*scene.root.rglob("*.map")]) == 2, "both are on their way")
        scene.proxy.heal()
        ends = [one.end(), other.end()]
    (scene.root / LOCK_FILE).rmdir()
    wrong = [f"one ended with {code}: {said}" for code, _, said in ends if code]
    return wrong + _finished(scene)


def the_lock_vanishes(scene: Scene) -> list[str]:
    """Both believe to hold the lock, and the second takes the first one's partial file over."""
    with half_way(scene) as first:
        (scene.root / LOCK_FILE).unlink()
        with Pull(scene, PATIENCE_S="60") as second:
            _until((scene.root / LOCK_FILE).exists, "the second has the lock")
            scene.proxy.heal()
            ends = [first.end(), second.end()]
    wrong = [f"one ended with {code}: {said}" for code, _, said in ends if code]
    return wrong + _finished(scene)


def the_holder_is_killed(scene: Scene) -> list[str]:
    """Whoever waits takes over at once and goes on with what is there."""
    reports: list[Any] = []
    waits = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.phase is Phase.WAITING:
            waits.set()

    with half_way(scene) as first:
        second = threading.Thread(target=lambda: reports.append(scene.pull(on_progress)))
        second.start()
        if not waits.wait(20):
            return ["the second did not wait"]
        first.signal(signal.SIGKILL)
        first.end()
        scene.proxy.heal()
        second.join(30)
    wrong = [] if reports and reports[0].resumed_bytes else ["it did not go on"]
    return wrong + _finished(scene)


def the_holder_freezes(scene: Scene) -> list[str]:
    """Frozen, taken for dead, thawed: two writers, and the files are right."""
    with half_way(scene) as first, mock.patch("models_sync.lock.STALE_S", STALE_S):
        first.signal(signal.SIGSTOP)
        scene.proxy.heal()
        report = scene.pull()
        wrong = [] if report.resumed_bytes else ["it did not go on"]
        wrong += scene.violations()
        first.signal(signal.SIGCONT)
        code, _, said = first.end()
    if code not in {0, PartialLost.exit_code}:
        wrong.append(f"the thawed one ended with {code}: {said}")
    return wrong + _finished(scene)


def pages_are_lost(scene: Scene) -> list[str]:
    """A power cut: the map says that parts have landed, and the disk has zeros."""
    with half_way(scene) as running:
        running.signal(signal.SIGKILL)
        running.end()
    (partial,) = scene.root.rglob(".models-sync-*.part")
    with partial.open("r+b") as file:
        file.write(bytes(20 * PART_BYTES))
    scene.proxy.heal()
    report = scene.pull()
    wrong = _finished(scene)
    if report.received_bytes + report.resumed_bytes != sum(map(len, scene.current.values())):
        wrong.append("kept and fetched parts do not make the file")
    if not report.resumed_bytes:
        wrong.append("what was not lost was fetched again")
    return wrong


def the_map_is_lost(scene: Scene) -> list[str]:
    """Nobody knows what has landed: everything is fetched, and right."""
    with half_way(scene) as running:
        running.signal(signal.SIGKILL)
        running.end()
    (map_,) = scene.root.rglob(".models-sync-*.map")
    map_.write_bytes(b"\x01" * 17)
    scene.proxy.heal()
    scene.pull()
    return _finished(scene)


def damaged_beside_another(scene: Scene) -> list[str]:
    """No manifest, all damaged on the way, and the small file shows it first: the next pull finds
    out that the parts of the large one are of no use, and fetches it anew.
    """
    scene.publish(1, manifest=False)

    def fault(reply: Reply) -> None:
        if reply.total != str(len(scene.current[LARGE])):
            _until(lambda: _landed(scene) > 0, "a part of the large file has landed")
            faults.damaged(reply)
        elif reply.size == DEFAULT_PART_BYTES:
            faults.damaged(reply)
        else:
            faults.stalled(reply)

    scene.proxy.fault = fault
    try:
        scene.pull(STALL_S="60")
        wrong = ["it ended well"]
    except ObjectDamaged:
        wrong = []
    scene.proxy.heal()
    scene.pull()
    return wrong + _finished(scene)


def copied_by_hand(scene: Scene) -> list[str]:
    """Files that somebody put there are hashed and kept; a wrong one is replaced."""
    scene.publish(1)
    for path, content in scene.current.items():
        (scene.root / path).parent.mkdir(parents=True, exist_ok=True)
        (scene.root / path).write_bytes(content)
    asked = scene.proxy.asked
    report = scene.pull()
    wrong = [] if set(report.adopted) == set(scene.current) else [f"kept {report.adopted}"]
    if scene.proxy.asked != asked:
        wrong.append("bytes were asked for")
    broken = bytearray(scene.current[LARGE])
    broken[len(broken) // 2] ^= 1
    (scene.root / LARGE).write_bytes(broken)
    if scene.pull().fetched != [LARGE]:
        wrong.append("a damaged file was not replaced")
    return wrong + _finished(scene)


def all_is_there_and_read_only(scene: Scene) -> list[str]:
    """A volume that cannot be written and needs nothing is fine."""
    scene.publish(1)
    scene.pull()
    before = {path: path.stat().st_mtime_ns for path in scene.root.rglob("*")}
    with mock.patch("models_sync.atomic.Path.replace", side_effect=OSError(30, "Read-only")):
        report = scene.pull()
    wrong = [] if set(report.present) == set(scene.current) else ["it found something to do"]
    if before != {path: path.stat().st_mtime_ns for path in scene.root.rglob("*")}:
        wrong.append("something was written")
    return wrong


PLAYS: dict[str, Callable[[Scene], list[str]]] = {
    "killed half-way": killed_half_way,
    "SIGTERM half-way": terminated,
    "SIGTERM before an answer": terminated_before_an_answer,
    "two pods, one pulls": one_pulls_the_other_waits,
    "two pods, no lock": no_lock_at_all,
    "two pods, the lock vanishes": the_lock_vanishes,
    "the holder is killed": the_holder_is_killed,
    "pages are lost": pages_are_lost,
    "the map is lost": the_map_is_lost,
    "damaged beside another": damaged_beside_another,
    "copied by hand": copied_by_hand,
    "all there, read-only": all_is_there_and_read_only,
}
SLOW_PLAYS: dict[str, Callable[[Scene], list[str]]] = {
    "the holder freezes and thaws": the_holder_freezes,
}
"""They wait until a holder is taken for dead."""
