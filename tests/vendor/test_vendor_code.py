"""Code of others comes from its own folder, and from nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.avatar.vendor_code import import_vendor
from worker.errors import ModelInvalid, ModelMissing

PACKAGE = "a_vendor_of_our_tests"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    package = tmp_path / "checkout" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "code.py").write_text("ANSWER = 42\n")
    (package / "needs.py").write_text("import a_package_that_nobody_has\n")
    yield package.parent
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def test_a_module_is_imported_and_its_folder_does_not_stay_on_the_path(checkout: Path) -> None:
    before = list(sys.path)
    assert import_vendor(checkout, f"{PACKAGE}.code", variable="A_DIR").ANSWER == 42
    assert sys.path == before


def test_a_missing_checkout_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="holds no sam2") as refused:
        import_vendor(tmp_path, "sam2.build_sam", variable="SAM3DBODY_SEGMENTOR_PATH")
    assert "SAM3DBODY_SEGMENTOR_PATH" in refused.value.advice


def test_a_package_that_it_needs_is_named(checkout: Path) -> None:
    with pytest.raises(ModelMissing, match="a_package_that_nobody_has"):
        import_vendor(checkout, f"{PACKAGE}.needs", variable="A_DIR")
    assert str(checkout) not in sys.path


def test_the_same_package_from_elsewhere_is_refused(checkout: Path, tmp_path: Path) -> None:
    import_vendor(checkout, f"{PACKAGE}.code", variable="A_DIR")
    (tmp_path / "other" / PACKAGE).mkdir(parents=True)
    with pytest.raises(ModelInvalid, match=rf"was imported from .*{PACKAGE}, not from"):
        import_vendor(tmp_path / "other", f"{PACKAGE}.code", variable="A_DIR")
