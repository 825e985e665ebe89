"""Does every tensor of a file fit the module that it is for?  All of them, or none is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.avatar.weights.checkpoint import State
from worker.avatar.weights.source import WeightsFile

_NAMED = 4
"""How many tensors of each kind the short form names."""


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """How a file's tensors and a module's differ."""

    fitting: int
    """Tensors that are as they must be."""
    missing: tuple[str, ...]
    """Of the module, not in the file."""
    unexpected: tuple[str, ...]
    """In the file, not of the module."""
    wrong: tuple[str, ...]
    """Of another shape or kind of number: `name: 3×64, not 3×128`."""
    not_finite: tuple[str, ...]
    """With NaN or infinity where the module has none."""

    @property
    def fits(self) -> bool:
        """Whether the file may be loaded."""
        return not (self.missing or self.unexpected or self.wrong or self.not_finite)

    def __str__(self) -> str:
        """Say in a sentence what differs; a few names of each kind."""
        if self.fits:
            return f"all {self.fitting} tensors fit"
        found = [
            f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{' …' * (len(names) > _NAMED)})"
            for kind, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.wrong),
                ("not finite", self.not_finite),
            )
            if names
        ]
        if not self.fitting:
            found.insert(0, "not one tensor fits, it is another model's")
        return "; ".join(found)


def compare(module: nn.Module, tensors: Mapping[str, Tensor]) -> WeightsReport:
    """Hold a file's tensors against those of a module."""
    wanted: dict[str, Tensor] = module.state_dict()
    wrong, not_finite, fitting = [], [], 0
    for name in wanted.keys() & tensors.keys():
        ours, theirs = wanted[name], tensors[name]
        if ours.shape != theirs.shape:
            wrong.append(f"{name}: {_shape(theirs)}, not {_shape(ours)}")
        elif _kind(ours) != _kind(theirs):
            wrong.append(f"{name}: {theirs.dtype}, not {ours.dtype}")
        elif not _finite(theirs) and _finite(ours):
            not_finite.append(name)
        else:
            fitting += 1
    return WeightsReport(
        fitting=fitting,
        missing=tuple(sorted(wanted.keys() - tensors.keys())),
        unexpected=tuple(sorted(tensors.keys() - wanted.keys())),
        wrong=tuple(sorted(wrong)),
        not_finite=tuple(sorted(not_finite)),
    )


def load_into(
    module: nn.Module, state: State, file: WeightsFile, *, what: str = ""
) -> WeightsReport:
    """Put a file's tensors into a module, when every single one fits.

    Args:
        module: receives them.
        state: the tensors.
        file: where they are from, for the message.
        what: which of the file's modules it is, where it holds several.

    Raises:
        ModelInvalid: naming the file, and what is missing, unexpected, of another shape or not
            finite; the module is unchanged.
    """
    report = compare(module, state.tensors)
    if not report.fits:
        raise file.wrong(f"does not fit{f' {what}' if what else ''}: {report}")
    module.load_state_dict(dict(state.tensors), strict=True)
    return report


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _kind(tensor: Tensor) -> str:
    """Name the kind of number; precisions of one kind are converted without harm."""
    if tensor.dtype is torch.bool:
        return "bool"
    if tensor.dtype.is_complex:
        return "complex"
    return "real" if tensor.dtype.is_floating_point else "whole"


def _finite(tensor: Tensor) -> bool:
    return not tensor.dtype.is_floating_point or bool(torch.isfinite(tensor).all())
