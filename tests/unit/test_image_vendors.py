"""Code of vendors on its way into the image, and what the worker says of it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from vendors.fetch import Vendor, VendorError
from worker.licensed_code import VendorCode, describe, licensed_code
from worker.settings import ModelSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def image() -> ModuleType:
    """docker/vendors.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("image_vendors", ROOT / "docker" / "vendors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Vendor:
    folder = tmp_path / "context" / "thing"
    (folder / "thing").mkdir(parents=True)
    (folder / "thing" / "code.py").write_text("print('pinned')\n")
    (folder / "LICENSE").write_text("do as you like\n")
    (folder / "notebook.ipynb").write_text("{}")
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "pinned")
    (folder / "thing" / "__pycache__").mkdir()
    (folder / "thing" / "__pycache__" / "code.pyc").write_bytes(b"old")
    return Vendor(
        name="thing",
        repository="https://example.invalid/someone/thing",
        commit=git(folder, "rev-parse", "HEAD"),
        licence="MIT",
        licence_file="LICENSE",
        commercial="no",
        used="nothing",
        container="/app/vendors/thing",
        paths=("thing", "LICENSE"),
    )


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_listed_and_nothing_else_goes_to_the_place_of_the_contract(
    image: ModuleType, checkout: Vendor, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    image.bring([checkout], tmp_path / "context", root, free=False)
    assert files_below(root) == {
        "app/vendors.json",
        "app/vendors/thing/LICENSE",
        "app/vendors/thing/thing/code.py",
    }
    told = licensed_code(ModelSettings.read({}), root / "app" / "vendors.json")
    assert told == (VendorCode("thing", checkout.commit),)
    assert describe(told) == f"thing {checkout.commit[:12]}"


def test_changed_code_and_code_of_another_commit_end_the_build(
    image: ModuleType, checkout: Vendor, tmp_path: Path
) -> None:
    other = replace(checkout, commit="0" * 40)
    with pytest.raises(VendorError, match="not at 000000000000"):
        image.bring([other], tmp_path / "context", tmp_path / "root", free=False)
    (tmp_path / "context" / "thing" / "thing" / "code.py").write_text("print('mine')\n")
    with pytest.raises(VendorError, match="differs from its commit"):
        image.bring([checkout], tmp_path / "context", tmp_path / "root", free=False)


def test_an_image_that_may_be_public_has_no_code_that_may_not(
    image: ModuleType, checkout: Vendor, tmp_path: Path
) -> None:
    free = replace(checkout, name="free", commercial="yes", container="/app/vendors/free")
    (tmp_path / "context" / "thing").rename(tmp_path / "context" / "free")
    subprocess.run(
        ["cp", "-r", tmp_path / "context" / "free", tmp_path / "context" / "thing"], check=True
    )
    brought = image.bring([checkout, free], tmp_path / "context", tmp_path / "root", free=True)
    assert [vendor.name for vendor in brought] == ["free"]
    assert not (tmp_path / "root" / "app" / "vendors" / "thing").exists()


def test_what_only_tests_need_is_in_no_image(
    image: ModuleType, checkout: Vendor, tmp_path: Path
) -> None:
    unused = replace(checkout, container=None)
    assert image.bring([unused], tmp_path / "context", tmp_path / "root", free=False) == []
    assert files_below(tmp_path / "root") == {"app/vendors.json"}


def test_without_any_the_image_is_built_and_says_that_it_is_the_free_default(
    image: ModuleType, checkout: Vendor, tmp_path: Path
) -> None:
    image.bring([checkout], tmp_path / "nothing", tmp_path / "root", free=False)
    record = tmp_path / "root" / "app" / "vendors.json"
    assert json.loads(record.read_text()) == []
    # As the Dockerfile asks, before it installs what they import.
    assert '"name"' not in record.read_text()
    assert "free default" in describe(licensed_code(ModelSettings.read({}), record))


def test_without_an_image_the_folders_of_the_variables_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "sam2" / "sam2").mkdir(parents=True)
    models = ModelSettings.read(
        {
            "SAM3DBODY_SEGMENTOR_PATH": str(tmp_path / "sam2"),
            "SAM3DBODY_REPO_DIR": str(tmp_path / "none"),
            "PIXIE_MODEL_DIR": str(tmp_path / "none"),
        }
    )
    told = licensed_code(models, tmp_path / "no-record.json")
    assert [code.name for code in told] == ["sam2"]
    assert "not verified" in describe(told)


def test_the_image_and_the_makefile_install_the_same_torch_and_torchvision() -> None:
    makefile = (ROOT / "Makefile").read_text()
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    for name in ("torch", "torchvision"):
        wanted = re.findall(rf":= {name}==([0-9.]+)$", makefile, flags=re.MULTILINE)
        built = set(re.findall(rf"\b{name}={{2,3}}([0-9]+\.[0-9]+\.[0-9]+)", dockerfile))
        assert built == set(wanted)
        assert wanted
