"""The accuracy page's tables and plots, from a report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.benchmarks import accuracy, accuracy_plots

KEYS = ("chest", "waist", "hip", "inseam")


def _figures(error: float) -> dict[str, Any]:
    each = dict.fromkeys(KEYS, error)
    return {
        "n": 3,
        "refused": {"NOT_STANDING": 1},
        "mae_cm": each,
        "bias_cm": dict.fromkeys(KEYS, -error),
        "standard_error_cm": dict.fromkeys(KEYS, 0.2),
        "coverage90": 0.9,
        "coverage90_by_measurement": dict.fromkeys(KEYS, 0.9),
        "half_width_cm": dict.fromkeys(KEYS, 2.0),
        "baselines": {"height": {"n": 3, "mae_cm": dict.fromkeys(KEYS, 8.0)}, "floor": None},
        "target": {"girths_cm": 1.8},
    }


REPORT = {"body": "b", "setups": {"front+side/everyday": _figures(1.5)}, "cases": {}}


def test_the_table_names_the_error_its_bias_and_what_is_guessed() -> None:
    table = accuracy.girths_table(REPORT)
    assert "| **front+side/everyday** | 3, 1 refused | 1.5 (-1.5) ±0.2 |" in table
    assert "| **1.50** | ≤ 1.8 |" in table
    assert "| height | 3 | 8.0 | 8.0 | 8.0 | 8.00 |" in table
    assert "floor" not in table
    assert "90% (±2.0)" in accuracy.intervals_table(REPORT)
    assert "| chest | waist | hip | inseam |" in accuracy.all_table(REPORT)


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    start = "<!-- all: written by tests.benchmarks.accuracy -->"
    page = f"before\n{start}\nold\n<!-- end of all -->\nafter"
    assert accuracy.replaced(page, "all", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="has no part girths"):
        accuracy.replaced(page, "girths", "new")


def test_the_page_has_every_part_that_is_written() -> None:
    page = accuracy.PAGE.read_text("utf-8")
    for name in ("girths", "all", "intervals"):
        assert "new text" in accuracy.replaced(page, name, "new text")
    for image in re.findall(r"\]\(\.\./images/(accuracy[^)]*)\)", page):
        assert Path(accuracy.IMAGES / image).exists()


def test_reports_of_different_bodies_are_not_merged() -> None:
    with pytest.raises(ValueError, match="different bodies"):
        accuracy.merged([REPORT, {**REPORT, "body": "another"}])
    other = {"body": "b", "setups": {"front/everyday": _figures(2.0)}, "cases": {}}
    assert list(accuracy.merged([REPORT, other])["setups"]) == [
        "front+side/everyday",
        "front/everyday",
    ]


def _case(rng: np.random.Generator, stretch: float) -> dict[str, Any]:
    """A person whose intervals are `stretch` times as wide as they should be."""
    off = rng.normal(0, 1.0, len(KEYS))
    half = 1.645 * stretch
    return {
        "off_cm": dict(zip(KEYS, off, strict=True)),
        "true_cm": dict.fromkeys(KEYS, 90.0),
        "interval_cm": {
            k: [90 + one - half, 90 + one + half] for k, one in zip(KEYS, off, strict=True)
        },
    }


def test_calibrated_intervals_lie_on_the_diagonal_and_wide_ones_above() -> None:
    rng = np.random.default_rng(0)
    series = {
        "right": [_case(rng, 1.0) for _ in range(400)],
        "wide": [_case(rng, 3.0) for _ in range(400)],
    }
    svg = ET.fromstring(accuracy_plots.calibration(series))
    lines = [line.attrib["points"] for line in svg.iter() if line.tag.endswith("polyline")]
    right, wide = (np.array([p.split(",") for p in line.split()], dtype=float) for line in lines)
    # x - 50 over 350 is the level; below a legend of two lines, (398 - y) / 340 is the share.
    level, share = (right[:, 0] - 50) / 350, (398 - right[:, 1]) / 340
    assert np.abs(level - share).max() < 0.05
    assert (wide[:, 1] <= right[:, 1] + 1e-6).all()


def test_every_measurement_has_its_row_in_the_plot_of_errors() -> None:
    rng = np.random.default_rng(1)
    drawn = accuracy_plots.errors({"all": [_case(rng, 1.0) for _ in range(30)]}, KEYS)
    svg = ET.fromstring(drawn)
    assert {text.text for text in svg.iter() if text.tag.endswith("text")} >= set(KEYS)
    assert sum(one.tag.endswith("rect") for one in svg.iter()) == 2 + len(KEYS)
