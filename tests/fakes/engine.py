"""A stand-in for the engine process: real pipes, real messages, no torch.

It says on stderr that it is a fake, and does what the front photo's bytes tell it: `ok`, `slow`,
`no-person`, `oom`, `raise`, `segfault`, `exit`, `hang`, `print`.  The supervisor's tests start it
instead of `worker.engine.process`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from worker.engine.messages import Built, EngineConfig, Ready, RunJob
from worker.engine.process import Advance, main
from worker.errors import ModelMissing, NoPerson, OutOfMemory

STAGES = ("photo", "observe", "fit", "measure", "export")


class FakeBuilder:
    def __init__(self, config: EngineConfig) -> None:
        sys.stderr.write("this is the tests' fake engine\n")
        behaviour = config.gltfpack_path or ""
        if behaviour == "die-in-setup":
            os._exit(7)
        if behaviour == "model-missing":
            raise ModelMissing("pose.tflite is not there.")

    def ready(self) -> Ready:
        return Ready(device_name="fake", models=("fake-model@0",))

    def build(self, job: RunJob, advance: Advance) -> Built:
        folder = Path(job.folder)
        word = (folder / job.front).read_bytes().split(b"\n")[0].decode(errors="replace").strip()
        self._misbehave(word)
        for stage in STAGES:
            for step in range(1, 5):
                advance(stage, step / 4)
                time.sleep(0.1 if word == "slow" else 0.001)
        (folder / "avatar.glb").write_bytes(b"glTF" + os.urandom(64))
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
            sources={"body": "fake"},
        )

    def _misbehave(self, word: str) -> None:
        if word == "no-person":
            raise NoPerson
        if word == "oom":
            raise OutOfMemory
        if word == "raise":
            raise RuntimeError("boom")
        if word == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "exit":
            os._exit(3)
        if word == "hang":
            signal.pause()
        if word == "print":
            sys.stdout.write("a library prints to stdout\n")


if __name__ == "__main__":
    main(sys.argv, FakeBuilder)
