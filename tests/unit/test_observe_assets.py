"""Model files: pinned, whole or absent, and never printed about."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from worker.avatar.observe import Observer, assets
from worker.errors import ModelInvalid, ModelMissing

CONTENT = {asset.name: f"the network {asset.name}".encode() for asset in assets.ASSETS}


@pytest.fixture
def small_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin small files in place of the real ones."""
    pinned = tuple(
        replace(asset, sha256=assets._sha256(CONTENT[asset.name])) for asset in assets.ASSETS
    )
    monkeypatch.setattr(assets, "ASSETS", pinned)


def wheel(folder: Path, content: dict[str, bytes]) -> Path:
    path = folder / "mediapipe.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for asset in assets.ASSETS:
            if asset.name in content:
                archive.writestr(asset.member, content[asset.name])
    return path


def serve(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[Path]:
    calls: list[Path] = []

    def download(folder: Path) -> Path:
        calls.append(folder)
        return path

    monkeypatch.setattr(assets, "_download_wheel", download)
    return calls


def test_fetching_unpacks_the_pinned_files_once(
    tmp_path: Path, small_assets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = serve(monkeypatch, wheel(tmp_path, CONTENT))
    told: list[float] = []
    models = tmp_path / "deep" / "models"
    assets.fetch(models, lambda _what, done: told.append(done))
    assert {path.name: path.read_bytes() for path in models.iterdir()} == CONTENT
    assert told == sorted(told)
    assert told[-1] == 1.0
    assets.verify(models)
    assets.fetch(models)
    assert len(calls) == 1


def test_a_damaged_file_is_named_and_fetched_again(
    tmp_path: Path, small_assets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, wheel(tmp_path, CONTENT))
    models = tmp_path / "models"
    assets.fetch(models)
    victim = models / assets.ASSETS[0].name
    victim.write_bytes(b"half a fi")
    with pytest.raises(ModelInvalid, match=victim.name) as caught:
        assets.verify(models)
    assert "models fetch" in caught.value.advice
    assets.fetch(models)
    assert victim.read_bytes() == CONTENT[victim.name]


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=assets.ASSETS[0].name) as caught:
        assets.verify(tmp_path)
    assert "avatar-worker models fetch" in caught.value.advice
    with pytest.raises(ModelMissing):
        Observer.load(tmp_path)


@pytest.mark.parametrize("wrong", [{}, dict.fromkeys(CONTENT, b"another network")])
def test_a_package_with_other_files_leaves_nothing_behind(
    tmp_path: Path, small_assets: None, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, bytes]
) -> None:
    serve(monkeypatch, wheel(tmp_path, wrong))
    models = tmp_path / "models"
    with pytest.raises(ModelInvalid):
        assets.fetch(models)
    assert list(models.iterdir()) == []


def test_what_pip_says_goes_into_the_error_and_not_onto_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho 'WARNING: chatter' >&2\necho 'ERROR: no network' >&2\nexit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(ModelMissing, match="ERROR: no network") as caught:
        assets.fetch(tmp_path / "models")
    assert "chatter" not in caught.value.message
    assert "package index" in caught.value.advice
    assert capfd.readouterr() == ("", "")


def test_models_live_in_the_users_cache() -> None:
    assert assets.default_models_dir().parts[-2:] == ("avatar-worker", "observer")
