"""A stand-in for the engine process: real pipes, real messages, no torch.

It says on stderr that it is a fake, and does what the words in the first line of the front photo
tell it.  The supervisor's tests start it instead of `worker.engine.process`.

    ok                    (or anything unknown) an avatar, quickly
    slow                  2 s in all           slow-STAGE        1.5 s in that stage
    hold-STAGE:PATH       waits in that stage until the file is there; makes PATH.reached first
    kill-STAGE            SIGKILLs itself there
    kill-STAGE:PATH       the same, once: it makes the file first, and does not when it is there
    no-person oom raise   raises that          oom-once          OutOfMemory unless economy
    segfault exit hang    ends or hangs before the first stage
    cuda-sticky           a sticky CUDA error, from the process's second job on
    leak leak-MIB         keeps 256 or that many MiB of memory
    deaf                  stops itself (SIGSTOP)
    gil                   holds the interpreter's lock for ever, as native code can
    print                 prints to stdout
    random                other bytes in avatar.glb each time; else they depend on the job alone
    child                 leaves a process of its own behind in its group, its number in `child.pid`

`sources["computed"]` names the stages that were computed and not resumed, `sources["economy"]` is
there when it was asked for, `sources["pid"]` tells processes apart, `sources["gpu"]` is what the
process sees of the GPUs.  With `smplx_dir` it has a licensed body while that folder is there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from worker.engine.messages import Built, EngineConfig, Ready, RunJob
from worker.engine.process import Advance, Checkpoint, main
from worker.errors import EngineError, ModelMissing, NoPerson, OutOfMemory

STAGES = ("photo", "observe", "fit", "measure", "export")
CHECKPOINTS = {"observe": "checkpoint_observe.npz", "fit": "checkpoint_fit.npz"}
FINGERPRINT = "fake-engine-1"
STEP_S = 0.05
MIB = 1024 * 1024


class AcceleratorError(RuntimeError):
    """Named and worded like torch's."""


class FakeBuilder:
    def __init__(self, config: EngineConfig) -> None:
        sys.stderr.write("this is the tests' fake engine\n")
        self._jobs = 0
        self._leaked: list[bytes] = []
        self._volume = Path(config.smplx_dir) if config.smplx_dir else None
        behaviour = config.gltfpack_path or ""
        if behaviour == "die-in-setup":
            os._exit(7)
        if behaviour == "model-missing":
            raise ModelMissing("pose.tflite is not there.")
        if behaviour == "no-cuda":
            raise EngineError("torch sees no CUDA device.")

    def ready(self) -> Ready:
        return Ready(
            device_name="fake",
            models=("fake-model@0",),
            licensed=("fake-smplx",) if self._volume and self._volume.is_dir() else (),
            fingerprint=FINGERPRINT,
        )

    def build(self, job: RunJob, advance: Advance, checkpoint: Checkpoint) -> Built:
        self._jobs += 1
        folder = Path(job.folder)
        front = (folder / job.front).read_bytes()
        words = front.split(b"\n")[0].decode(errors="replace").split()
        for word in words:
            self._misbehave(word, job)
        key = _digest(job, front)
        computed = []
        for stage in STAGES:
            name = CHECKPOINTS.get(stage)
            content = f"fake {stage} of {key}".encode()
            if name and stage in job.resume and _read(folder / name) == content:
                advance(stage, 1.0)
                continue
            _compute(stage, words, advance)
            computed.append(stage)
            if name:
                (folder / name).write_bytes(content)
                checkpoint(stage, (name,))
        noise = os.urandom(64) if "random" in words else key.encode()
        (folder / "avatar.glb").write_bytes(b"glTF" + noise)
        (folder / "measurements.json").write_text('{"chestCm": 100.0}')
        (folder / "mask_front.png").write_bytes(b"\x89PNG")
        return Built(
            files=("avatar.glb", "measurements.json", "mask_front.png"),
            inspection_files=frozenset({"mask_front.png"}),
            measurements_cm={"chestCm": 100.04, "heightCm": job.height_m * 100},
            confidence="high",
            warnings=(),
            view_iou={"front": 0.95},
            stage_seconds=dict.fromkeys(STAGES, 0.01),
            sources={
                "body": "fake",
                "computed": computed,
                "pid": os.getpid(),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            }
            | ({"economy": True} if job.economy else {}),
        )

    def cuda_reserved_bytes(self) -> int:
        return 0

    def release_memory(self) -> None:
        self._leaked.clear()

    def _misbehave(self, word: str, job: RunJob) -> None:
        misdeeds: dict[str, Callable[[], object]] = {
            "no-person": lambda: _throw(NoPerson()),
            "oom": lambda: _throw(OutOfMemory()),
            "oom-once": lambda: None if job.economy else _throw(OutOfMemory()),
            "raise": lambda: _throw(RuntimeError("boom")),
            "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
            "exit": lambda: os._exit(3),
            "hang": signal.pause,
            "deaf": lambda: os.kill(os.getpid(), signal.SIGSTOP),
            "gil": lambda: ctypes.PyDLL(None).sleep(3600),
            "print": lambda: sys.stdout.write("a library prints to stdout\n"),
            "cuda-sticky": lambda: None if self._jobs == 1 else _throw(_sticky()),
            "child": lambda: _leave_a_child(Path(job.folder)),
        }
        if word in misdeeds:
            misdeeds[word]()
        elif word == "leak" or word.startswith("leak-"):
            self._leaked.append(b"\1" * (int(word[5:] or 256) * MIB))


def _compute(stage: str, words: list[str], advance: Advance) -> None:
    advance(stage, 0.0)
    for word in words:
        deed, _, path = word.partition(":")
        if deed == f"kill-{stage}" and not (path and Path(path).exists()):
            if path:
                Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == f"hold-{stage}":
            Path(f"{path}.reached").touch()
            while not Path(path).exists():
                time.sleep(0.01)
    steps = 30 if f"slow-{stage}" in words else 4
    pause_s = STEP_S if steps == 30 else 0.1 if "slow" in words else 0.001
    for step in range(1, steps + 1):
        time.sleep(pause_s)
        advance(stage, step / steps)


def _digest(job: RunJob, front: bytes) -> str:
    told = job.model_dump_json(exclude={"folder", "resume", "economy"}).encode()
    side = (Path(job.folder) / job.side).read_bytes() if job.side else b""
    return hashlib.sha256(told + b"\0" + front + b"\0" + side).hexdigest()


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _throw(error: Exception) -> None:
    raise error


def _sticky() -> AcceleratorError:
    return AcceleratorError(
        "CUDA error: an illegal memory access was encountered\n"
        "CUDA kernel errors might be asynchronously reported at some other API call"
    )


def _leave_a_child(folder: Path) -> None:
    started = subprocess.Popen(["sleep", "3600"])
    (folder / "child.pid").write_text(str(started.pid))


if __name__ == "__main__":
    main(sys.argv, FakeBuilder)
