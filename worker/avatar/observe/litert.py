"""LiteRT, the only vendor package of this folder, behind a class of ours."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from worker.avatar.types import Float32Array
from worker.errors import ModelInvalid


class LiteModel:
    """A `.tflite` network with one input tensor, run on the CPU.

    Not re-entrant: an interpreter owns its buffers.  Calls from several threads take turns.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        """Load the file.

        Args:
            path: a `.tflite` file that `assets.verify` has passed.
            threads: CPU threads of one inference.

        Raises:
            ModelInvalid: LiteRT cannot load the file.
        """
        try:
            with _native_stderr_muted():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelInvalid(f"LiteRT cannot load {path}: {error}") from error
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self._lock = threading.Lock()

    @property
    def input_side_px(self) -> int:
        """Side of the square picture that the network takes."""
        return int(self._input["shape"][1])

    def run(self, picture: Float32Array) -> tuple[Float32Array, ...]:
        """Run the network.

        Args:
            picture: (S, S, 3), in the range that the network was trained on.

        Returns:
            The output tensors in the file's order, without their batch dimension.
        """
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], picture[None].astype(np.float32))
            self._interpreter.invoke()
            return tuple(
                np.asarray(self._interpreter.get_tensor(output["index"]), dtype=np.float32)[0]
                for output in self._outputs
            )


def sigmoid(logits: Float32Array) -> Float32Array:
    """Return 1 / (1 + e^−x) without overflow."""
    bounded = logits.clip(-60.0, 60.0).astype(np.float32)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)), dtype=np.float32)


@contextmanager
def _native_stderr_muted() -> Iterator[None]:
    """Hide what LiteRT's C++ writes while loading: an INFO line that no setting turns off."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
