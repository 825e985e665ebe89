"""The adapter of the benchmark to the prototype of the fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.peer_prototype import Prototype, _contours


def test_a_folder_without_the_prototype_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fitlib\.py is missing"):
        Prototype(tmp_path)


def test_contours_are_rows_and_columns_as_the_prototype_expects_them() -> None:
    image = np.zeros((20, 40))
    image[4:8, 10:30] = 1.0
    (line,) = _contours(image, 0.5)
    assert np.allclose(line.min(axis=0), (3.5, 9.5))
    assert np.allclose(line.max(axis=0), (7.5, 29.5))
