"""Bring the code of vendors.toml into folders beside it, at exactly the pinned commits.

    python vendors/fetch.py [NAME …] [--mirror PATTERN] [--into FOLDER] [--check]

A checkout that already lies there is taken when it is at the pinned commit and unchanged, is
brought up to the list when it is unchanged, and is refused by name otherwise: nobody's edits are
lost.  Only the folders that are used are checked out, and where the server allows it only they
travel.  Standard library alone, so that an image can run it before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIST = HERE / "vendors.toml"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMERCIAL = ("yes", "conditions", "no")
_GIT_TIMEOUT_S = 900
_CODE_ENDINGS = (".py", ".pth", ".so", ".yaml", ".toml")
"""Of files that change what runs, when they lie in a checkout without belonging to its commit."""
_NO_SUCH_COMMIT = ("not our ref", "couldn't find remote ref", "unadvertised object")


class VendorError(Exception):
    """A vendor's code cannot be had or is not what is pinned; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One entry of vendors.toml."""

    name: str
    """Of the folder."""
    repository: str
    """URL that git clones."""
    commit: str
    """40 hexadecimal digits."""
    licence: str
    licence_file: str
    commercial: str
    """yes, conditions or no."""
    used: str
    """What it does for us."""
    container: str | None = None
    """Where the image has it; None: it does not."""
    variable: str | None = None
    """The variable of the worker that names that folder."""
    paths: tuple[str, ...]
    """What is checked out."""

    @property
    def owner(self) -> str:
        """Of the repository: facebookresearch."""
        return self.repository.rstrip("/").split("/")[-2]


def read_vendors(path: Path = LIST) -> list[Vendor]:
    """Read and check the list.

    Raises:
        VendorError: an entry is incomplete or wrong.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("vendor", [])
    vendors = [_vendor(entry, path) for entry in entries]
    if len({vendor.name for vendor in vendors}) != len(vendors) or not vendors:
        raise VendorError(f"{path.name} holds no vendor, or one of them twice.")
    return vendors


def _vendor(entry: dict[str, object], path: Path) -> Vendor:
    name = entry.get("name", "?")
    known = {field.name for field in fields(Vendor)}
    needed = known - {"container", "variable"}
    wrong = sorted((needed - entry.keys()) | (entry.keys() - known))
    if wrong:
        raise VendorError(f"{path.name}: {name}: missing or unknown: {', '.join(wrong)}.")
    listed = entry["paths"]
    texts = {key: value for key, value in entry.items() if key != "paths"}
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(listed, list):
        raise VendorError(f"{path.name}: {name}: every value is a text, `paths` a list of them.")
    vendor = Vendor(**texts, paths=tuple(map(str, listed)))  # type: ignore[arg-type]  # checked above
    for what, fits in (
        ("commit is not 40 hexadecimal digits", _COMMIT.fullmatch(vendor.commit)),
        ("name is no plain folder name", _NAME.fullmatch(vendor.name)),
        (f"commercial is none of {', '.join(_COMMERCIAL)}", vendor.commercial in _COMMERCIAL),
        ("licence_file is not among the paths", vendor.licence_file in vendor.paths),
    ):
        if not fits:
            raise VendorError(f"{path.name}: {vendor.name}: {what}.")
    return vendor


def check(vendor: Vendor, folder: Path) -> None:
    """Make sure that a folder holds a vendor's code at its commit, unchanged.

    Weights and whatever else the vendor itself ignores may lie in it.

    Raises:
        VendorError: saying what is wrong and what to do.
    """
    if not folder.is_dir():
        raise VendorError(f"{folder} is missing: run `make vendors`.")
    head = _head(folder)
    if head is None:
        raise VendorError(f"{folder} is no git checkout: move it away and run `make vendors`.")
    if head != vendor.commit:
        raise VendorError(
            f"{folder} is at {head[:12]}, not at {vendor.commit[:12]}: run `make vendors`."
        )
    if changed := _changed(folder):
        raise VendorError(
            f"{folder} differs from its commit ({_few(changed)}): "
            "move it away and run `make vendors`."
        )
    if absent := [path for path in vendor.paths if not (folder / path).exists()]:
        raise VendorError(f"{folder} lacks {_few(absent)}: move it away and run `make vendors`.")


def bring(vendor: Vendor, folder: Path, source: str | None = None) -> str:
    """Make a folder hold a vendor's code at its commit.

    Args:
        vendor: what is wanted.
        folder: appears whole or not at all.
        source: repository to fetch from instead of the upstream: a mirror's URL or folder.

    Returns:
        What was done, in words.

    Raises:
        VendorError: the code cannot be had, or the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        try:
            check(vendor, folder)
        except VendorError:
            if _head(folder) is None or _changed(folder):
                raise
            _fetch(vendor, folder, source)
            check(vendor, folder)
            return "brought up to the list"
        return "was there"
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _git(partial, "init", "--quiet")
        _fetch(vendor, partial, source)
        check(vendor, partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return "fetched"


def _fetch(vendor: Vendor, folder: Path, source: str | None) -> None:
    """Fetch one commit and check out what is used of it."""
    url = source or vendor.repository
    remote = {
        "remote.pinned.url": url,
        # A mirror's folder answers for any commit, and without what is not asked for.
        "remote.pinned.uploadpack": (
            "git -c safe.directory=* -c uploadpack.allowFilter=true "
            "-c uploadpack.allowAnySHA1InWant=true upload-pack"
        ),
    }
    if not Path(url).is_dir():
        del remote["remote.pinned.uploadpack"]
    for key, value in remote.items():
        _git(folder, "config", key, value)
    options = ("--quiet", "--no-tags", "--depth=1", "--filter=blob:none")
    done = _run(folder, "fetch", *options, "pinned", vendor.commit)
    if done.returncode != 0:
        raise VendorError(_why_not_fetched(vendor, url, done.stderr))
    # git reads .gitignore for every `status`, and would fetch it again and again.
    wanted = [f"/{path}" for path in (*vendor.paths, ".gitignore", ".gitattributes")]
    _git(folder, "sparse-checkout", "set", "--no-cone", *wanted)
    done = _run(folder, "checkout", "--quiet", "--detach", vendor.commit)
    if done.returncode != 0:
        raise VendorError(_why_not_fetched(vendor, url, done.stderr))
    # What a later git asks for comes from the upstream, whatever served this time.
    _git(folder, "config", "remote.pinned.url", vendor.repository)
    _run(folder, "config", "--unset", "remote.pinned.uploadpack")


def _why_not_fetched(vendor: Vendor, url: str, stderr: str) -> str:
    reason = next((line for line in stderr.splitlines() if line.strip()), "git gave no reason")
    if any(words in stderr for words in _NO_SUCH_COMMIT):
        return f"{url} has no commit {vendor.commit}: {reason}"
    return (
        f"{url} cannot be reached, or does not give out what is asked for: {reason}\n"
        "    Where there is no way to it, put a checkout there by hand, or name a mirror: "
        "make vendors MIRROR='…/{owner}/{name}'"
    )


def _head(folder: Path) -> str | None:
    """Give the commit that is checked out, or None where the folder is no checkout itself."""
    done = _run(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    return done.stdout.strip() if done.returncode == 0 else None


def _changed(folder: Path) -> list[str]:
    """Name files that differ from the commit, and code that does not belong to it."""
    listing = _git(folder, "status", "--porcelain=v1", "-z", "--untracked-files=all")
    entries = [entry for entry in listing.split("\0") if entry]
    return [
        entry[3:]
        for entry in entries
        if not entry.startswith("??") or entry.endswith(_CODE_ENDINGS)
    ]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _git(folder: Path, *arguments: str) -> str:
    done = _run(folder, *arguments)
    if done.returncode != 0:
        raise VendorError(f"git {arguments[0]} in {folder}: {done.stderr.strip()}")
    return done.stdout


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A hook or an editor may have set git's variables for another repository.
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    environment = inherited | {
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }
    settings = (
        "safe.directory=*", "core.hooksPath=/dev/null", "core.autocrlf=false",
        "core.fsmonitor=false", "http.lowSpeedLimit=1000", "http.lowSpeedTime=30",
    )  # fmt: skip
    options = [word for setting in settings for word in ("-c", setting)]
    try:
        return subprocess.run(  # noqa: S603 - fixed words, and values of our own list
            ["git", "-C", str(folder), *options, *arguments],  # noqa: S607 - the user's git
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise VendorError("git is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise VendorError(f"git {arguments[0]} took more than {_GIT_TIMEOUT_S} s.") from error


def _chosen(vendors: Iterable[Vendor], names: Sequence[str]) -> list[Vendor]:
    known = {vendor.name: vendor for vendor in vendors}
    if unknown := [name for name in names if name not in known]:
        raise VendorError(f"{_few(unknown)} is not in the list: {', '.join(known)}.")
    return [known[name] for name in names] or list(known.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring or check; one line a vendor; 0 when all are as pinned, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; default: all")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of the checkouts")
    parser.add_argument(
        "--mirror", help="fetch from here instead; {owner} and {name} are filled in"
    )
    parser.add_argument("--check", action="store_true", help="fetch nothing, only look")
    parser.add_argument("--list", type=Path, default=LIST, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    wrong = 0
    try:
        vendors = _chosen(read_vendors(options.list), options.names)
    except VendorError as error:
        parser.error(str(error))
    for vendor in vendors:
        folder = options.into.resolve() / vendor.name
        source = None
        if options.mirror:
            source = options.mirror.replace("{owner}", vendor.owner)
            source = source.replace("{name}", vendor.repository.rstrip("/").split("/")[-1])
        try:
            if options.check:
                check(vendor, folder)
            done = "as pinned" if options.check else bring(vendor, folder, source)
        except VendorError as error:
            wrong += 1
            print(f"  ✗ {vendor.name}: {error}", file=sys.stderr)  # noqa: T201 - a program's answer
        else:
            terms = {"no": ", non-commercial use only", "conditions": ", conditions apply"}
            print(  # noqa: T201 - same
                f"  ✓ {vendor.name} {vendor.commit[:12]}: {done} "
                f"({vendor.licence}{terms.get(vendor.commercial, '')})"
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
