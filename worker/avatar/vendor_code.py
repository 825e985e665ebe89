"""Importing code of others from its own folder, and from nowhere else.

Vendors' packages are no releases: they are checkouts (`vendors/vendors.toml`), and their top-level
names clash with whatever lies on the path.  So a vendor's folder is on the path only while it is
imported, in front of everything, and what was imported must come from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from worker.errors import ModelInvalid, ModelMissing


def import_vendor(folder: Path, module: str, *, variable: str) -> ModuleType:
    """Import a module of a vendor's checkout.

    Args:
        folder: the checkout; holds the module's top-level package.
        module: dotted name, such as `sam2.build_sam`.
        variable: of the environment, that names the folder; for the advice.

    Raises:
        ModelMissing: the checkout is not there, or a package that it needs is not installed.
        ModelInvalid: a package of that name was imported from somewhere else.
    """
    package = module.partition(".")[0]
    if not (folder / package).is_dir():
        raise ModelMissing(
            f"{folder} holds no {package}.",
            advice=f"Run `make vendors`, or let {variable} name the checkout.",
        )
    sys.path.insert(0, str(folder))
    try:
        with quiet():
            imported = importlib.import_module(module)
    except ImportError as error:
        raise ModelMissing(
            f"{package} cannot be imported from {folder}: {error}.",
            advice="Install requirements/vendors.lock and the torchvision of this torch.",
        ) from error
    finally:
        sys.path.remove(str(folder))
    origin = Path(imported.__file__ or "").resolve()
    if not origin.is_relative_to((folder / package).resolve()):
        raise ModelInvalid(
            f"{package} was imported from {origin.parent}, not from {folder}.",
            advice=f"Uninstall the other {package}: only the pinned checkout may run.",
        )
    return imported


def import_isolated(
    folder: Path, names: Sequence[str], stand_ins: Mapping[str, Mapping[str, Any]]
) -> ModuleType:
    """Import top-level modules of a vendor whose names are anybody's, and forget their names.

    Args:
        folder: the checkout.
        names: its modules, each after those that it imports; the last one is returned.
        stand_ins: modules that it imports and that are not wanted, with what is taken from them.

    Raises:
        ModelMissing: a file or a package that it needs is not there.
    """
    known = {name: sys.modules.get(name) for name in (*names, *stand_ins)}
    try:
        for name in known:
            sys.modules.pop(name, None)
        for name, attributes in stand_ins.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(attributes)
        with quiet():
            for name in names:
                found = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
                if found is None or found.loader is None or not (folder / f"{name}.py").is_file():
                    raise ModelMissing(
                        f"{folder} holds no {name}.py.", advice="Run `make vendors`."
                    )
                module = importlib.util.module_from_spec(found)
                sys.modules[name] = module
                found.loader.exec_module(module)
    except ImportError as error:
        raise ModelMissing(
            f"{folder.name} cannot be imported: {error}.",
            advice="Install requirements/vendors.lock.",
        ) from error
    finally:
        for name, before in known.items():
            sys.modules.pop(name, None)
            if before is not None:
                sys.modules[name] = before
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Keep vendors' prints and deprecation warnings from the log: we cannot mend what they say."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def import_package(name: str) -> ModuleType:
    """Import a package that only vendors' code and formats need.

    Raises:
        ModelMissing: it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise ModelMissing(
            f"{name} cannot be imported: {error}.",
            advice="Install requirements/vendors.lock.",
        ) from error


class Posing(ModuleType):
    """A module, with some of its functions replaced, to stand where vendors' code looks for it."""

    def __init__(self, original: ModuleType, **replaced: Any) -> None:
        super().__init__(original.__name__)
        self._original = original
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        """Give what is not replaced."""
        return getattr(self._original, name)


@contextmanager
def swapped(owner: Any, **replaced: Any) -> Iterator[None]:
    """Replace attributes of a vendor's module or object for a while."""
    before = {name: getattr(owner, name) for name in replaced}
    for name, value in replaced.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def import_torchvision() -> None:
    """Import torchvision, also its CUDA build beside a torch for the CPU.

    That build registers operators that its library, which cannot be loaded then, would define, and
    fails.  They are declared here instead; nothing that we run calls them.

    Raises:
        ModelMissing: it is not installed.
    """
    try:
        with quiet():
            importlib.import_module("torchvision")
    except ImportError as error:
        raise ModelMissing(
            f"torchvision cannot be imported: {error}.",
            advice="Install the torchvision of this torch, without its dependencies.",
        ) from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library(  # type: ignore[no-untyped-call] # torch has no type for it
            "torchvision", "FRAGMENT"
        )
        _LIBRARIES.append(library)
        for operator in ("nms", "qnms"):
            library.define(  # type: ignore[no-untyped-call] # same
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        with quiet():
            importlib.import_module("torchvision")


_LIBRARIES: list[torch.library.Library] = []
"""What is declared in one lives as long as it does."""
