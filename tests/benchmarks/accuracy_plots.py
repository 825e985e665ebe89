"""Plots of the accuracy page: plain SVG, written by hand, a few kilobytes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from tests.benchmarks.figures import LEVEL

_COLOURS = ("#1b6ca8", "#c8553d", "#4f8a4f")
_FONT = 'font-family="sans-serif" font-size="12"'
_SIGMAS = float(norm.ppf(0.5 + LEVEL / 2))
"""Half a 90 % interval, in standard deviations."""

Cases = Sequence[Mapping[str, Any]]


def errors(series: Mapping[str, Cases], measurements: Sequence[str]) -> str:
    """Signed errors: deciles 1 to 9, quartiles and median of each measurement, one row each.

    Args:
        series: the rows of a report's `cases`, by what the legend shall say.
        measurements: in the bench's words.
    """
    row_px, left, width = 17 * len(series) + 10, 120, 860
    low, high = -12.0, 12.0
    height = row_px * len(measurements) + 70

    def x(value_cm: float) -> float:
        return left + (min(max(value_cm, low), high) - low) / (high - low) * (width - left - 20)

    parts = [_legend(list(series), left)]
    bottom = 40 + row_px * len(measurements)
    for tick in range(-12, 13, 2):
        strong = ' stroke-width="2"' if tick == 0 else ""
        parts.append(
            f'<line x1="{x(tick):.1f}" y1="34" x2="{x(tick):.1f}" y2="{bottom}" '
            f'stroke="#8886"{strong}/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick}</text>'
        )
    parts.append(
        f'<text x="{x(0):.1f}" y="{bottom + 30}" text-anchor="middle">ours minus true, cm</text>'
    )
    for i, key in enumerate(measurements):
        top = 40 + i * row_px
        parts.append(f'<text x="{left - 8}" y="{top + row_px / 2}" text-anchor="end">{key}</text>')
        for k, cases in enumerate(series.values()):
            off = [case["off_cm"][key] for case in cases if key in case["off_cm"]]
            if off:
                parts.append(_box(off, x, top + 10 + 17 * k, _COLOURS[k]))
    return _svg(width, height, parts)


def calibration(series: Mapping[str, Cases]) -> str:
    """How often the truth lies inside intervals of every level; the diagonal is perfect.

    The fit gives 90 % intervals; those of other levels are the same normal distribution's.
    """
    size, left, top = 420, 50, 40
    lower = 18 * (len(series) - 1)
    """The legend is one line a curve: side by side they would not fit."""

    def x(share: float) -> float:
        return left + share * (size - left - 20)

    def y(share: float) -> float:
        return lower + size - 40 - share * (size - 40 - top)

    parts = [_legend(list(series), left, stacked=True)]
    parts += [
        f'<line x1="{x(0):.1f}" y1="{y(tick):.1f}" x2="{x(1):.1f}" y2="{y(tick):.1f}" '
        f'stroke="#8884"/><text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">'
        f'{tick:.0%}</text><text x="{x(tick):.1f}" y="{lower + size - 24}" text-anchor="middle">'
        f"{tick:.0%}</text>"
        for tick in (0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts.append(
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#888" '
        f'stroke-dasharray="4 4"/><text x="{x(0.5):.1f}" y="{lower + size - 6}" '
        f'text-anchor="middle">level of the interval</text>'
    )
    for k, cases in enumerate(series.values()):
        scores = np.abs(_scores(cases))
        if not len(scores):
            continue
        levels = np.linspace(0.05, 0.99, 40)
        inside = [(scores <= norm.ppf(0.5 + level / 2)).mean() for level in levels]
        points = " ".join(
            f"{x(level):.1f},{y(share):.1f}" for level, share in zip(levels, inside, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_COLOURS[k]}" stroke-width="2"/>'
        )
    return _svg(size, lower + size, parts)


def _scores(cases: Cases) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Errors in standard deviations, of every measurement of every case."""
    found = []
    for case in cases:
        for key, (low, high) in (case["interval_cm"] or {}).items():
            if key in case["true_cm"]:
                apart = case["true_cm"][key] - (low + high) / 2
                found.append(apart / max((high - low) / 2 / _SIGMAS, 1e-9))
    return np.array(found)


def _box(off: Sequence[float], x: Any, y: float, colour: str) -> str:
    d1, q1, median, q3, d9 = np.percentile(off, (10, 25, 50, 75, 90))
    return (
        f'<line x1="{x(d1):.1f}" y1="{y}" x2="{x(d9):.1f}" y2="{y}" stroke="{colour}"/>'
        f'<rect x="{x(q1):.1f}" y="{y - 5}" width="{max(x(q3) - x(q1), 1):.1f}" height="10" '
        f'fill="{colour}" fill-opacity="0.45"/>'
        f'<line x1="{x(median):.1f}" y1="{y - 6}" x2="{x(median):.1f}" y2="{y + 6}" '
        f'stroke="{colour}" stroke-width="3"/>'
    )


def _legend(names: Sequence[str], left: float, *, stacked: bool = False) -> str:
    parts, at, top = [], left, 12
    for name, colour in zip(names, _COLOURS, strict=False):
        parts.append(
            f'<rect x="{at}" y="{top}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{at + 18}" y="{top + 10}">{name}</text>'
        )
        if stacked:
            top += 18
        else:
            at += 36 + 7 * len(name)
    return "".join(parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" {_FONT}><rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
