"""Tensors from a checkpoint of torch, without running anything that is in it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.avatar.weights.source import WeightsFile

_CODE = re.compile(r"\bGLOBAL ([\w.]+\w)")
_FACTS = re.compile(r"WeightsUnpickler error: (.{1,160})")
_PLAIN = re.compile(r"(?!Weights only load failed)(.{1,160})")

_NAMED = 6
"""How many names a message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a file of weights holds."""

    tensors: Mapping[str, Tensor]
    sha256: str
    """Of the file, for `sources`."""


def read_state(
    file: WeightsFile,
    *,
    at: Sequence[str] = (),
    or_bare: bool = False,
    harmless: Sequence[type] = (),
) -> State:
    """Read the tensors of a checkpoint onto the CPU.

    Args:
        file: what to read, and which digest it must have.
        at: keys that lead to the tensors: `("model",)` for `{"model": {…}, "epoch": 3}`.
        or_bare: whether a file without those keys may hold the tensors themselves.
        harmless: classes that a training leaves beside its tensors, such as its configuration; they
            are made, and thrown away.

    Raises:
        ModelMissing: there is no such file.
        ModelInvalid: it is no whole checkpoint, has another digest, asks to run code, or holds
            something else than named tensors there.
    """
    loaded, digest = _load(file, harmless)
    for depth, key in enumerate(at):
        if or_bare and isinstance(loaded, Mapping) and key not in loaded:
            break
        if not isinstance(loaded, Mapping) or key not in loaded:
            where = ".".join(at[: depth + 1])
            raise file.wrong(f"holds no `{where}`, but {_contents(loaded)}")
        loaded = loaded[key]
    return State(_tensors(file, loaded), digest)


def read_states(file: WeightsFile, names: Sequence[str]) -> dict[str, State]:
    """Read the tensors of several modules that one checkpoint holds by name.

    What else the file holds (a training's optimiser, its step) is not looked at.

    Raises:
        ModelMissing, ModelInvalid: as `read_state`, or a name is not there.
    """
    loaded, digest = _load(file)
    if not isinstance(loaded, Mapping):
        raise file.wrong(f"holds no named modules, but {_contents(loaded)}")
    if absent := [name for name in names if name not in loaded]:
        listed = ", ".join(f"`{name}`" for name in absent[:_NAMED])
        raise file.wrong(f"holds no {listed}, but {_contents(loaded)}")
    return {name: State(_tensors(file, loaded[name], where=name), digest) for name in names}


def _load(file: WeightsFile, harmless: Sequence[type] = ()) -> tuple[Any, str]:
    """Read a file whole, after it was looked at; also its SHA-256."""
    with file.open() as opened, torch.serialization.safe_globals(list(harmless)):
        digest = file.verify(opened)
        try:
            return torch.load(opened, map_location="cpu", weights_only=True), digest
        except Exception as error:
            # Bytes of unknown origin can make a reader raise anything; none of it is a checkpoint.
            raise file.wrong(_why_unread(error)) from error


def _why_unread(error: Exception) -> str:
    # torch's own words advise to read the file without care; only their facts are passed on.
    if asked := _CODE.search(str(error)):
        return f"asks to run code, which weights have no need of: `{asked[1]}`"
    facts = _FACTS.search(str(error)) or _PLAIN.match(str(error))
    said = f": {facts[1].rstrip('.')}" if facts else ""
    return f"cannot be read as a checkpoint ({type(error).__name__}{said})"


def _tensors(file: WeightsFile, loaded: Any, *, where: str = "") -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping) or not loaded:
        under = f" under `{where}`" if where else ""
        raise file.wrong(f"holds no named tensors{under}, but {_contents(loaded)}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise file.wrong(f"holds a {type(value).__name__} named {name!r} among its tensors")
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise file.wrong(f"holds a {value.layout} tensor on {value.device} named {name!r}")
    return dict(loaded)


def _contents(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    if not loaded:
        return "nothing at all"
    names = ", ".join(f"`{name}`" for name in list(loaded)[:_NAMED])
    return names + (" …" if len(loaded) > _NAMED else "")


def read_script(
    file: WeightsFile, device: torch.device | None = None
) -> tuple[torch.jit.ScriptModule, str]:
    """Read a TorchScript, and its SHA-256.

    A TorchScript is a program, in a language of torch's own that reaches neither files nor the
    network; it is parsed, and nothing of it runs before it is called.

    Args:
        file: what to read.
        device: where it will run; None: the CPU.  A later `.to` moves a script's parameters and
            buffers, but leaves the constants that its code names where they were read to.

    Raises:
        ModelMissing: there is no such file.
        ModelInvalid: it is no whole TorchScript, or has another digest.
    """
    with file.open() as opened:
        digest = file.verify(opened)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch would rather have another format
                script = torch.jit.load(opened, map_location=device or "cpu")  # type: ignore[no-untyped-call] # torch has no type for it
                return script, digest
        except Exception as error:
            # As above: bytes of unknown origin can make a reader raise anything.
            raise file.wrong(f"cannot be read as TorchScript ({type(error).__name__})") from error
