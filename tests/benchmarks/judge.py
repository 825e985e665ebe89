"""Fit a case, or guess it, and hold the measurements against the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.cases.baselines import features
from tests.benchmarks.cases import Case
from tests.benchmarks.observing import Refused, SeenCases
from tests.benchmarks.peer_prototype import Prototype
from tests.benchmarks.setups import Setup
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.measure import Measurer
from worker.avatar.measure.intervals import measurement_intervals_cm, standard_errors_cm
from worker.avatar.types import BodyFit, Float64Array, Gender, Observation
from worker.errors import AvatarError

BASELINES = Path(__file__).with_name("baselines.json")
"""Regressions on people of the generator, for sets that bring none of their own."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """How one case went."""

    off_cm: Mapping[str, float] = field(default_factory=dict)
    """Measured minus true, by the contract's names; empty where nothing came out."""
    intervals_cm: Mapping[str, Interval] | None = None
    """90 % intervals of the measurements, where the fit gives any."""
    truth_cm: Mapping[str, float] = field(default_factory=dict)
    vertex_mm: float | None = None
    seconds: float = 0.0
    iou: float | None = None
    """The worst view's."""
    confidence: str | None = None
    refused: str | None = None
    """Code of the error that a shopper would get instead of a result."""


class Judge:
    """The bodies and observers, loaded once."""

    def __init__(self, *, direct: bool = False) -> None:
        self._seen = SeenCases(direct=direct)
        self._bodies = {
            gender: BodyModel(free_body(gender), dtype=torch.float64) for gender in Gender
        }
        self._measurers = {gender: Measurer(body.data) for gender, body in self._bodies.items()}

    def fit(self, case: Case, setup: Setup) -> Outcome:
        """Fit one case as the worker does and hold it against its truth."""
        try:
            fit, seconds = self._fitted(case, setup)
        except Refused as refusal:
            return Outcome(refused=refusal.code)
        except AvatarError as error:
            return Outcome(refused=error.code)
        return self._judged(case, _told(case, setup), fit.betas, seconds=seconds, fit=fit)

    def off_and_believed_cm(
        self, case: Case, setup: Setup
    ) -> tuple[dict[str, float], dict[str, float]] | None:
        """How far each measurement is off, and its standard error as the fit alone sees it.

        None: the photos are refused.
        """
        try:
            fit, _ = self._fitted(case, setup)
        except (Refused, AvatarError):
            return None
        gender, height_m = _told(case, setup), _height_m(case)
        body, measurer = self._bodies[gender], self._measurers[gender]
        vertices = self._of_height(body, fit.betas, height_m)
        believed = standard_errors_cm(body, measurer, fit, height_m=height_m)
        return self._off(gender, vertices, case), believed

    def peer(self, case: Case, setup: Setup, prototype: Prototype) -> Outcome:
        """Let the prototype fit a case and hold it against the truth as ours is."""
        try:
            seen = [self._seen.observation(case, view) for view in setup.views]
        except Refused as refusal:
            return Outcome(refused=refusal.code)
        betas, seconds = prototype.fit(case, seen, weight=setup.weight)
        betas = np.pad(betas, (0, self._bodies[case.gender].num_betas - len(betas)))
        return self._judged(case, case.gender, betas, seconds=seconds, fit=None)

    def floor(self, case: Case, setup: Setup) -> Outcome:
        """Bring the true body into the shape space and measure it there."""
        true = case.vertices()
        if true is None:
            return Outcome(refused="NO_TRUE_BODY")
        gender = _told(case, setup)
        body = self._bodies[gender]
        directions = body.shapedirs.flatten(0, 1).numpy()
        apart = (true - body.v_template.numpy()).reshape(-1)
        betas = np.linalg.lstsq(directions, apart, rcond=None)[0]
        vertices = self._shaped(body, betas)
        return Outcome(self._off(gender, vertices, case), vertex_mm=_vertex_mm(vertices, true))

    def guess(self, case: Case, setup: Setup, *, with_weight: bool) -> Outcome:
        """What one would say without a photo, by regression."""
        known = _baselines(case.folder.parent)
        told = _told(case, setup)
        name = "height+weight" if with_weight else "height"
        weight_kg = case.request.get("weightKg")
        if told.value not in known or (with_weight and weight_kg is None):
            return Outcome(refused="NO_BASELINE")
        row = features(case.request["heightCm"], weight_kg or 0.0, with_weight)
        true = case.truth["measurementsCm"]
        coefficients = known[told.value][name]["coefficients"]
        off = {
            key: float(row @ np.array(values)) - true[key]
            for key, values in coefficients.items()
            if key in true
        }
        return Outcome(off)

    @staticmethod
    def _erosion_px(case: Case, seen: list[Observation]) -> float:
        """The worker's own allowance for cloth, but none where masks show bare bodies."""
        bare = not case.dressed and all(one.source == "synthetic" for one in seen)
        return 0.0 if bare else FitOptions().silhouette_torso_erode_px

    def _fitted(self, case: Case, setup: Setup) -> tuple[BodyFit, float]:
        seen = [self._seen.observation(case, view) for view in setup.views]
        started = time.perf_counter()
        fit = fit_body(
            self._bodies[_told(case, setup)],
            seen,
            height_m=_height_m(case),
            weight_kg=case.request["weightKg"] if setup.weight else None,
            options=FitOptions(setup.outlines, self._erosion_px(case, seen)),
        )
        return fit, time.perf_counter() - started

    def _judged(
        self,
        case: Case,
        gender: Gender,
        betas: Float64Array,
        *,
        seconds: float,
        fit: BodyFit | None,
    ) -> Outcome:
        body, height_m = self._bodies[gender], _height_m(case)
        vertices = self._of_height(body, betas, height_m)
        true = case.vertices()
        intervals = None
        if fit is not None:
            intervals = measurement_intervals_cm(
                body, self._measurers[gender], fit, height_m=height_m
            )
        return Outcome(
            off_cm=self._off(gender, vertices, case),
            intervals_cm=intervals,
            truth_cm=case.truth["measurementsCm"],
            vertex_mm=None if true is None else _vertex_mm(vertices, true),
            seconds=seconds,
            iou=None if fit is None else min(view.iou for view in fit.views),
        )

    def _off(self, gender: Gender, vertices: Float64Array, case: Case) -> dict[str, float]:
        measured = self._measurers[gender].measure(vertices)
        true = case.truth["measurementsCm"]
        return {key: measured[key] - true[key] for key in measured if key in true}

    @classmethod
    def _of_height(cls, body: BodyModel, betas: Float64Array, height_m: float) -> Float64Array:
        vertices = cls._shaped(body, betas)
        return vertices * (height_m / np.ptp(vertices[:, 1]))

    @staticmethod
    def _shaped(body: BodyModel, betas: Float64Array) -> Float64Array:
        return np.asarray(body.shaped(torch.as_tensor(betas)[None])[0].numpy())


def _told(case: Case, setup: Setup) -> Gender:
    return Gender.NEUTRAL if setup.neutral else case.gender


def _height_m(case: Case) -> float:
    return float(case.request["heightCm"]) / 100


def _baselines(folder: Path) -> dict[str, Any]:
    own = folder / "baselines.json"
    loaded: dict[str, Any] = json.loads((own if own.exists() else BASELINES).read_text("utf-8"))
    return loaded


def _vertex_mm(vertices: Float64Array, true: Float64Array) -> float:
    """Mean distance of the vertices in T-pose, middle on middle."""
    apart = (vertices - vertices.mean(axis=0)) - (true - true.mean(axis=0))
    return float(np.linalg.norm(apart, axis=1).mean() * 1000)
