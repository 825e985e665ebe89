"""The program that brings vendors' code, on git repositories made here."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from vendors.fetch import LIST, Vendor, VendorError, bring, check, main, read_vendors

PINNED = "print('the pinned code')\n"


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror" / "someone" / "thing"
    (folder / "thing").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "thing" / "code.py").write_text(PINNED)
    (folder / "notebooks" / "large.ipynb").write_text("x" * 10_000)
    (folder / "LICENSE").write_text("do as you like\n")
    (folder / ".gitignore").write_text("*.pt\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    return folder


@pytest.fixture
def vendor(upstream: Path) -> Vendor:
    pinned = commit(upstream, "pinned")
    (upstream / "thing" / "code.py").write_text("print('newer')\n")
    commit(upstream, "newer")
    return Vendor(
        name="thing",
        repository="https://example.invalid/someone/thing",
        commit=pinned,
        licence="MIT",
        licence_file="LICENSE",
        commercial="yes",
        used="nothing",
        container="/app/vendors/thing",
        paths=("thing", "LICENSE"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vendors" / "thing"


def test_exactly_the_pinned_commit_is_fetched_though_the_branch_is_further(
    vendor: Vendor, upstream: Path, folder: Path
) -> None:
    assert bring(vendor, folder, str(upstream)) == "fetched"
    assert git(folder, "rev-parse", "HEAD") == vendor.commit
    assert (folder / "thing" / "code.py").read_text() == PINNED
    assert not (folder / "notebooks").exists()
    assert str(upstream) not in (folder / ".git" / "config").read_text()


def test_a_checkout_at_the_right_commit_is_taken_and_nothing_is_fetched(
    vendor: Vendor, upstream: Path, folder: Path
) -> None:
    git(upstream, "clone", "--quiet", str(upstream), str(folder))
    git(folder, "checkout", "--quiet", vendor.commit)
    assert bring(vendor, folder, "/nowhere") == "was there"


def test_an_unchanged_checkout_of_another_commit_is_moved(
    vendor: Vendor, upstream: Path, folder: Path
) -> None:
    git(upstream, "clone", "--quiet", str(upstream), str(folder))
    assert bring(vendor, folder, str(upstream)) == "brought up to the list"
    assert (folder / "thing" / "code.py").read_text() == PINNED


def test_what_the_list_uses_anew_is_added_to_a_checkout(
    vendor: Vendor, upstream: Path, folder: Path
) -> None:
    bring(vendor, folder, str(upstream))
    more = replace(vendor, paths=(*vendor.paths, "notebooks"))
    with pytest.raises(VendorError, match="lacks notebooks"):
        check(more, folder)
    assert bring(more, folder, str(upstream)) == "brought up to the list"
    assert (folder / "notebooks" / "large.ipynb").exists()


@pytest.mark.parametrize("newer", [True, False])
def test_edits_in_a_checkout_are_named_and_kept(
    vendor: Vendor, upstream: Path, folder: Path, *, newer: bool
) -> None:
    git(upstream, "clone", "--quiet", str(upstream), str(folder))
    if not newer:
        git(folder, "checkout", "--quiet", vendor.commit)
    (folder / "thing" / "code.py").write_text("print('mine')\n")
    with pytest.raises(VendorError, match=r"differs from its commit|is at"):
        bring(vendor, folder, str(upstream))
    assert (folder / "thing" / "code.py").read_text() == "print('mine')\n"


def test_code_that_does_not_belong_to_the_commit_is_refused_and_weights_are_not(
    vendor: Vendor, upstream: Path, folder: Path
) -> None:
    bring(vendor, folder, str(upstream))
    (folder / "thing" / "weights.pt").write_bytes(b"weights")
    check(vendor, folder)
    (folder / "thing" / "hook.py").write_text("print('not theirs')\n")
    with pytest.raises(VendorError, match=r"thing/hook\.py"):
        check(vendor, folder)


def test_an_upstream_out_of_reach_is_named_and_leaves_nothing(
    vendor: Vendor, tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(VendorError, match="cannot be reached") as refused:
        bring(vendor, folder, str(tmp_path / "unplugged"))
    assert "MIRROR" in str(refused.value)
    assert list(folder.parent.iterdir()) == []


def test_a_commit_that_the_repository_lacks_is_named_and_leaves_nothing(
    vendor: Vendor, upstream: Path, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "file").write_text("another history")
    commit(other, "unrelated")
    with pytest.raises(VendorError, match=f"has no commit {vendor.commit}"):
        bring(vendor, folder, str(other))
    assert not folder.exists()


def test_a_folder_inside_another_repository_is_not_taken_for_a_checkout(
    vendor: Vendor, upstream: Path, tmp_path: Path
) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("the worker's own repository")
    commit(tmp_path, "ours")
    inside = tmp_path / "vendors" / "thing"
    inside.mkdir(parents=True)
    (inside / "code.py").write_text(PINNED)
    with pytest.raises(VendorError, match="is no git checkout"):
        bring(vendor, inside, str(upstream))


def test_an_empty_folder_is_filled_and_a_half_fetched_one_is_begun_again(
    vendor: Vendor, upstream: Path, folder: Path
) -> None:
    folder.mkdir(parents=True)
    partial = folder.with_name(".thing.partial")
    partial.mkdir()
    (partial / "rest").write_text("of a fetch that was cut off")
    assert bring(vendor, folder, str(upstream)) == "fetched"
    assert not partial.exists()
    assert not (folder / "rest").exists()


def test_the_command_says_one_line_for_each_and_fails_when_one_is_missing(
    vendor: Vendor, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "vendors.toml"
    keys = ("repository", "commit", "licence", "licence_file", "used", "container")
    entry = "\n".join(f'{key} = "{getattr(vendor, key)}"' for key in keys)
    listed.write_text(
        f'[[vendor]]\nname = "thing"\ncommercial = "no"\n{entry}\npaths = ["thing", "LICENSE"]\n'
    )
    into = ["--into", str(tmp_path / "here"), "--list", str(listed)]
    assert main([*into, "--check"]) == 1
    assert "is missing: run `make vendors`" in capsys.readouterr().err
    assert main([*into, "--mirror", f"{tmp_path}/mirror/{{owner}}/{{name}}"]) == 0
    assert "non-commercial use only" in capsys.readouterr().out
    assert main([*into, "--check", "thing"]) == 0
    with pytest.raises(SystemExit):
        main([*into, "nobody"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('commit = "main"', "40 hexadecimal digits"),
        ('name = "../elsewhere"', "no plain folder name"),
        ('commercial = "maybe"', "commercial is none of"),
        ('licence_file = "COPYING"', "not among the paths"),
        ('colour = "red"', "unknown: colour"),
    ],
)
def test_a_wrong_entry_of_the_list_is_refused(tmp_path: Path, wrong: str, said: str) -> None:
    right = LIST.read_text().split("[[vendor]]")[1]
    key = wrong.split(" = ", maxsplit=1)[0]
    kept = [line for line in right.splitlines() if not line.startswith(f"{key} =")]
    path = tmp_path / "vendors.toml"
    path.write_text("\n".join(["[[vendor]]", wrong, *kept]))
    with pytest.raises(VendorError, match=said):
        read_vendors(path)


def test_the_list_names_all_six_with_their_licences() -> None:
    vendors = {vendor.name: vendor for vendor in read_vendors()}
    assert vendors.keys() == {
        *("sam2", "sam-3d-body", "dinov3", "PIXIE", "SMPL-Anthropometry"),
        "MHR",
    }
    assert vendors["PIXIE"].commercial == "no"
    assert vendors["sam2"].licence == "Apache-2.0"
