"""Wrong weights of every kind are refused by name; none of them reaches the module."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from worker.avatar.weights import WeightsFile, compare, load_into, read_state
from worker.errors import ModelInvalid, ModelMissing


def network(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def save(path: Path, state: Any, **options: Any) -> WeightsFile:
    torch.save(state, path, **options)
    return WeightsFile("the network", path)


def test_right_weights_are_loaded_and_their_digest_is_told(path: Path) -> None:
    theirs, ours = network(), network()
    file = save(path, {"model": theirs.state_dict(), "epoch": 3})
    state = read_state(file, at=("model",))
    report = load_into(ours, state, WeightsFile("the network", path, sha256=state.sha256))
    assert str(report) == f"all {len(theirs.state_dict())} tensors fit"
    assert torch.equal(ours[0].weight, theirs[0].weight)


def test_weights_in_half_precision_and_in_the_old_format_are_loaded(path: Path) -> None:
    ours = network()
    file = save(path, network().half().state_dict(), _use_new_zipfile_serialization=False)
    assert load_into(ours, read_state(file), file).fits
    assert ours[0].weight.dtype is torch.float32


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"model\.ckpt \(the network\) is missing"):
        read_state(WeightsFile("the network", path))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def empty_tar(path: Path) -> None:
    tarfile.open(path, "w").close()


def other_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))


def never_downloaded(path: Path) -> None:
    path.write_bytes(b"\0" * 4096)


def web_page(path: Path) -> None:
    path.write_text("\n <!DOCTYPE html><html><body>404 Not Found</body></html>")


def store_error(path: Path) -> None:
    path.write_text('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')


def service_error(path: Path) -> None:
    path.write_text('{"error": "Access to model is restricted."}')


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(7, 250)) * 40)


def truncated(path: Path) -> None:
    torch.save(network(512).state_dict(), path)
    os.truncate(path, path.stat().st_size // 2)


def truncated_old_format(path: Path) -> None:
    torch.save(network(512).state_dict(), path, _use_new_zipfile_serialization=False)
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    """Break the pickle inside an archive that is whole."""
    torch.save(network().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_vX"))


def plain_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


def empty_zip(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\0" * 50_000_000)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def pickle_bomb(path: Path) -> None:
    torch.save({"model": Bomb(path.with_name("exploded"))}, path)


def bare_pickle_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.with_name("exploded")), protocol=2))


def whole_module(path: Path) -> None:
    torch.save(network(), path)


def a_list(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def no_weights(path: Path) -> None:
    torch.save({}, path)


def empty_parts(path: Path) -> None:
    torch.save({"model": {}, "optimizer": {}}, path)


def other_content(path: Path) -> None:
    torch.save({"betas": torch.zeros(3), "epoch": 3}, path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "is empty"),
        (empty_tar, "empty tar archive"),
        (other_tar, "is a tar archive"),
        (never_downloaded, "a download that never came"),
        (web_page, "is a web page"),
        (store_error, "an object store's error"),
        (service_error, "a service's error"),
        (lfs_pointer, "a git LFS pointer"),
        (noise, "is no checkpoint of torch"),
        (truncated, "ends in the middle"),
        (truncated_old_format, "cannot be read as a checkpoint"),
        (flipped, "asks to run code"),
        (plain_zip, "without a checkpoint in it"),
        (empty_zip, "without a checkpoint in it"),
        (zip_bomb, "that unpacks to"),
        (pickle_bomb, "asks to run code"),
        (bare_pickle_bomb, r"asks to run code.*`posix\.system`"),
        (whole_module, r"asks to run code.*`torch\.nn\.modules\.container\.Sequential`"),
        (a_list, "holds no `model`, but a list"),
        (no_weights, "holds no `model`, but nothing at all"),
        (empty_parts, "holds no named tensors, but nothing at all"),
        (other_content, "holds no `model`, but `betas`, `epoch`"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_name_and_runs_nothing(
    path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(path)
    with pytest.raises(ModelInvalid, match=said) as refused:
        read_state(WeightsFile("the network", path), at=("model",))
    assert refused.value.message.startswith(f"{path} (the network) ")
    assert str(path) in refused.value.advice
    assert "weights_only" not in refused.value.message
    assert not path.with_name("exploded").exists()


def test_a_gzipped_file_is_named(path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz"):
        pass
    path.write_bytes(packed.getvalue())
    with pytest.raises(ModelInvalid, match="compressed with gzip"):
        read_state(WeightsFile("the network", path))


def test_another_digest_is_refused_before_anything_is_read_from_it(path: Path) -> None:
    pickle_bomb(path)
    with pytest.raises(ModelInvalid, match="has the digest sha256:"):
        read_state(WeightsFile("the network", path, sha256="0" * 64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("0.bias"), r"1 missing \(0\.bias\)"),
        (lambda state: state.update(head=torch.zeros(2)), r"1 unexpected \(head\)"),
        (
            lambda state: state.update({"0.weight": torch.zeros(8, 5)}),
            r"1 of another shape \(0\.weight: 8×5, not 8×4\)",
        ),
        (
            lambda state: state.update({"0.bias": torch.zeros(8, dtype=torch.int32)}),
            r"0\.bias: torch\.int32, not torch\.float32",
        ),
        (lambda state: state["2.bias"].fill_(float("nan")), r"1 not finite \(2\.bias\)"),
    ],
)
def test_one_tensor_in_doubt_refuses_the_file_and_leaves_the_module_alone(
    path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    state = dict(network().state_dict())
    change(state)
    file = save(path, state)
    ours = network()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ModelInvalid, match=said) as refused:
        load_into(ours, read_state(file), file)
    assert "model.ckpt" in refused.value.message
    assert all(torch.equal(before[name], now) for name, now in ours.state_dict().items())


def test_weights_of_another_size_and_of_another_model_are_told_apart(path: Path) -> None:
    wider = compare(network(), network(16).state_dict())
    assert len(wider.wrong) == 7
    assert not wider.missing
    other = compare(network(), nn.Conv2d(3, 4, 3).state_dict())
    assert "not one tensor fits, it is another model's" in str(other)


def test_infinity_is_no_fault_where_the_module_has_it_too() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    assert compare(Masked(), Masked().state_dict()).fits


def test_a_name_that_is_no_tensor_is_refused(path: Path) -> None:
    file = save(path, {"0.weight": torch.zeros(2), "version": "1.0"})
    with pytest.raises(ModelInvalid, match="holds a str named 'version'"):
        read_state(file)


def test_a_sparse_tensor_is_refused(path: Path) -> None:
    file = save(path, {"0.weight": torch.eye(3).to_sparse()})
    with pytest.raises(ModelInvalid, match=r"sparse_coo tensor on cpu named '0\.weight'"):
        read_state(file)


def test_a_folder_in_the_place_of_a_file_is_no_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ModelMissing, match="is missing"):
        read_state(WeightsFile("the network", path))
