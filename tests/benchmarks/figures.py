"""From how each case went to the figures of a setup: one shape for people and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.judge import Outcome
from tests.benchmarks.setups import EXCESS, GIRTHS, INSEAM, INSEAM_TARGET_CM, TARGETS_CM, short

LEVEL = 0.9
"""Of the intervals."""


@dataclass(frozen=True)
class Row:
    """One case in one setup."""

    set: str
    case: str
    gender: str
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """What a plot needs of it."""
        one = self.outcome
        intervals = one.intervals_cm or {}
        ends = {short(k): [round(low, 2), round(high, 2)] for k, (low, high) in intervals.items()}
        return {
            "set": self.set,
            "case": self.case,
            "gender": self.gender,
            "refused": one.refused,
            "off_cm": _rounded({short(k): v for k, v in one.off_cm.items()}),
            "true_cm": _rounded({short(k): one.truth_cm[k] for k in one.off_cm if one.truth_cm}),
            "interval_cm": ends or None,
            "iou": None if one.iou is None else round(one.iou, 3),
            "seconds": round(one.seconds, 3),
        }


def setup_figures(name: str, rows: list[Row], baselines: Mapping[str, list[Row]]) -> dict[str, Any]:
    """The figures of one setup on one family.

    Args:
        name: setup and family, as `TARGETS_CM` names them.
        rows: every case, those that gave no result too.
        baselines: the same cases in the same order, by other means.
    """
    done = [k for k, row in enumerate(rows) if row.outcome.refused is None]
    fitted = [rows[k] for k in done]
    figures: dict[str, Any] = {
        "n": len(fitted),
        "refused": dict(Counter(row.outcome.refused for row in rows if row.outcome.refused)),
    }
    if not fitted:
        return figures
    figures |= _errors(fitted)
    figures["by_gender"] = {
        gender: {"n": len(some), **_errors(some)}
        for gender in sorted({row.gender for row in fitted}, reverse=True)
        if (some := [row for row in fitted if row.gender == gender])
    }
    figures |= _coverage(fitted)
    figures["seconds_median"] = round(float(np.median([r.outcome.seconds for r in fitted])), 3)
    figures["vertex_mm"] = _mean([row.outcome.vertex_mm for row in fitted], 1)
    figures["iou"] = _mean([row.outcome.iou for row in fitted], 3)
    figures["baselines"] = {
        other: _baseline([same[k] for k in done]) for other, same in baselines.items()
    }
    figures["target"] = _target(name, figures)
    return figures


def mean_girths_cm(figures: Mapping[str, Any]) -> float | None:
    """Mean absolute error over chest, waist and hip; None where a tape took fewer."""
    errors = figures.get("mae_cm", {})
    if any(key not in errors for key in GIRTHS):
        return None
    return float(np.mean([errors[key] for key in GIRTHS]))


def _errors(rows: Iterable[Row]) -> dict[str, Any]:
    off: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.outcome.off_cm.items():
            off.setdefault(short(key), []).append(value)
    arrays = {key: np.array(values) for key, values in off.items()}
    return {
        "mae_cm": _rounded({k: np.abs(v).mean() for k, v in arrays.items()}),
        "standard_error_cm": _rounded(
            {k: np.abs(v).std() / len(v) ** 0.5 for k, v in arrays.items()}
        ),
        "bias_cm": _rounded({k: v.mean() for k, v in arrays.items()}),
        "p90_cm": _rounded({k: np.percentile(np.abs(v), 90) for k, v in arrays.items()}),
    }


def _coverage(rows: list[Row]) -> dict[str, Any]:
    """How often the truth lies in the interval, and how wide intervals are."""
    inside: dict[str, list[bool]] = {}
    half_cm: dict[str, list[float]] = {}
    for row in rows:
        one = row.outcome
        for key, (low, high) in (one.intervals_cm or {}).items():
            if key in one.truth_cm:
                inside.setdefault(short(key), []).append(low <= one.truth_cm[key] <= high)
                half_cm.setdefault(short(key), []).append((high - low) / 2)
    if not inside:
        return {"coverage90": None, "coverage90_by_measurement": None, "half_width_cm": None}
    every = [hit for hits in inside.values() for hit in hits]
    return {
        "coverage90": round(float(np.mean(every)), 3),
        "coverage90_by_measurement": {k: round(float(np.mean(v)), 3) for k, v in inside.items()},
        "half_width_cm": _rounded({k: np.mean(v) for k, v in half_cm.items()}),
    }


def _baseline(rows: list[Row]) -> dict[str, Any] | None:
    known = [row for row in rows if row.outcome.refused is None]
    if not known:
        return None
    errors = _errors(known)
    seconds = float(np.median([row.outcome.seconds for row in known]))
    return {
        "n": len(known),
        "mae_cm": errors["mae_cm"],
        "bias_cm": errors["bias_cm"],
        **({"seconds_median": round(seconds, 3)} if seconds else {}),
    }


def _target(name: str, figures: Mapping[str, Any]) -> dict[str, Any] | None:
    """Whether a setup is as good as it shall be; None where nothing was agreed."""
    reach = TARGETS_CM.get(name)
    mean = mean_girths_cm(figures)
    if reach is None or mean is None:
        return None
    errors = figures["mae_cm"]
    worst = max(errors[key] for key in GIRTHS)
    return {
        "girths_cm": reach,
        "girths_mean_cm": round(mean, 2),
        "girths_reached": bool(mean <= reach and worst <= EXCESS * reach),
        "inseam_cm": INSEAM_TARGET_CM,
        "inseam_reached": bool(errors[INSEAM] <= INSEAM_TARGET_CM) if INSEAM in errors else None,
    }


def _mean(values: list[float | None], digits: int) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), digits) if known else None


def _rounded(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: round(float(value), 2) for key, value in values.items()}
