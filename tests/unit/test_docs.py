"""The reference says what the code does, and every picture and page that is linked exists."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
GENERATED = runpy.run_path(str(REFERENCE / "generate.py"))["PAGES"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert (REFERENCE / name).read_text() == GENERATED[name](), "run `make docs`"


def test_every_package_of_the_run_time_has_its_licence_on_the_page() -> None:
    lock = (ROOT / "requirements" / "demo.lock").read_text()
    listed = (REFERENCE / "licences.md").read_text()
    installed = set(re.findall(r"^([a-z][a-z0-9-]*)==", lock, flags=re.MULTILINE))
    assert {name for name in installed if f"| {name} |" not in listed} == set()


@pytest.mark.parametrize("lock", [path.name for path in (ROOT / "requirements").glob("*.lock")])
def test_a_lock_names_no_host_and_hashes_everything(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^(torch(vision)?==|triton|nvidia-|cuda-)", text, flags=re.MULTILINE)
    for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", ["run.lock", "demo.lock"])
def test_the_run_time_is_free_of_non_commercial_code(name: str) -> None:
    lock = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"^(smplx|anny|chumpy)==", lock, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{target} is linked and is not there"
