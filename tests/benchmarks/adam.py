"""Adam where the fit's own solver takes its steps, on the same residuals.

D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015.  It moves in the solver's
own unknowns, always from where it stands, so that rotations stay rotations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from unittest import mock

import torch
from torch import Tensor

from worker.avatar.fit.fitter import OUTLINE_STEPS
from worker.avatar.fit.residuals import ImageTargets
from worker.avatar.fit.solver import Solver
from worker.avatar.fit.state import VIEW_UNKNOWNS, FitState

_MEMORY: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Adam:
    """How it is run."""

    rate: float
    steps: int
    """Of a whole fit, all against outlines; keypoints are left to the solver."""


@dataclass(slots=True)
class Stopwatch:
    """CPU seconds that steps against outlines took; all else is the same for both."""

    seconds: float = 0.0
    steps: int = 0
    """That Adam took."""


@contextmanager
def timed_steps() -> Iterator[Stopwatch]:
    """Time the solver's own steps against outlines."""
    original, watch = Solver.improve, Stopwatch()

    def improve(
        self: Solver, state: FitState, outline: ImageTargets | None
    ) -> tuple[FitState, float]:
        started = time.process_time()
        improved = original(self, state, outline)
        if outline is not None:
            watch.seconds += time.process_time() - started
        return improved

    with mock.patch.object(Solver, "improve", improve):
        yield watch


@contextmanager
def in_place_of_the_solver(adam: Adam) -> Iterator[Stopwatch]:
    """Let `fit_body` use Adam for its steps against outlines."""
    original, watch = Solver.improve, Stopwatch()
    memory: dict[int, _Moments] = {}

    def improve(
        self: Solver, state: FitState, outline: ImageTargets | None
    ) -> tuple[FitState, float]:
        if outline is None:
            return original(self, state, None)
        if id(self) not in memory:
            check(self, state, outline)
            memory[id(self)] = _Moments.of(state)
        moments = memory[id(self)]
        started = time.process_time()
        for _ in range(round(adam.steps / OUTLINE_STEPS)):  # as many times as outlines are matched
            watch.steps += 1
            gradient = _gradient(self, state, outline)
            state = state.moved(-adam.rate * moments.direction(gradient), self.posed(state))
        watch.seconds += time.process_time() - started
        return state, 0.0

    # Autograd cannot use what was made in inference mode.
    with (
        mock.patch.object(Solver, "improve", improve),
        mock.patch.object(torch, "inference_mode", _no_gradients),
    ):
        yield watch


def objective(solver: Solver, state: FitState, outline: ImageTargets) -> Tensor:
    """What the solver makes small, as autograd can follow it."""
    posed = state.posed(solver.shape)
    total = solver.keypoints.loss(state, posed, solver.centre)
    total = total + outline.loss(state, posed, solver.centre)
    total = total + (solver.pose_prior.residual(state) ** 2).sum()
    return total + (solver.shape_prior.residual(state.shared) ** 2).sum()


def check(solver: Solver, state: FitState, outline: ImageTargets) -> None:
    """See that Adam makes small what the solver does.

    Raises:
        AssertionError: the solver has terms that are unknown here.
    """
    ours, expected = float(objective(solver, state, outline)), solver.loss(state, outline)
    if abs(ours - expected) > 1e-6 * abs(expected):
        raise AssertionError(f"Adam would minimise {ours}, the solver {expected}")


def _gradient(solver: Solver, state: FitState, outline: ImageTargets) -> Tensor:
    size = len(state.shared) + state.views * VIEW_UNKNOWNS
    with torch.enable_grad():
        step = state.betas.new_zeros(size).requires_grad_()
        loss = objective(solver, state.moved(step, solver.posed(state)), outline)
        (gradient,) = torch.autograd.grad(loss, step)
    return gradient


@dataclass(slots=True)
class _Moments:
    first: Tensor
    second: Tensor
    count: int = 0

    @classmethod
    def of(cls, state: FitState) -> _Moments:
        size = len(state.shared) + state.views * VIEW_UNKNOWNS
        return cls(state.betas.new_zeros(size), state.betas.new_zeros(size))

    def direction(self, gradient: Tensor) -> Tensor:
        """Take a gradient in and give the direction, before the rate."""
        self.count += 1
        self.first = _MEMORY[0] * self.first + (1 - _MEMORY[0]) * gradient
        self.second = _MEMORY[1] * self.second + (1 - _MEMORY[1]) * gradient**2
        mean = self.first / (1 - _MEMORY[0] ** self.count)
        spread = self.second / (1 - _MEMORY[1] ** self.count)
        return mean / (spread.sqrt() + _EPSILON)


@contextmanager
def _no_gradients(mode: bool = True) -> Iterator[None]:
    with torch.set_grad_enabled(not mode and torch.is_grad_enabled()):
        yield
