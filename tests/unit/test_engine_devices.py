"""Which GPU each child gets, from what nvidia-smi says and what the operator wants."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worker.engine.devices import child_environments, list_gpus, parse_list
from worker.errors import SettingsError

TWO = """\
GPU 0: NVIDIA H200 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA RTX A6000 (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
"""
DIVIDED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  0: (UUID: MIG-33333333-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  1: (UUID: MIG-44444444-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
"""
G1 = "GPU-11111111-aaaa-bbbb-cccc-000000000000"
G2 = "GPU-22222222-aaaa-bbbb-cccc-000000000000"
BASE = {"PATH": "/bin"}


def given(
    base: dict[str, str], device: str, gpus: str, found: tuple[str, ...] = (G1, G2)
) -> list[str | None]:
    environments = child_environments(base, device, gpus, found=found)
    assert all(environment["PATH"] == "/bin" for environment in environments)
    return [environment.get("CUDA_VISIBLE_DEVICES") for environment in environments]


def test_nvidia_smis_list_is_read() -> None:
    assert parse_list(TWO) == (G1, G2)
    assert parse_list("No devices found.\n") == ()
    assert parse_list("") == ()


def test_a_divided_gpu_counts_as_its_parts() -> None:
    assert parse_list(DIVIDED) == (
        "MIG-33333333-aaaa-bbbb-cccc-000000000000",
        "MIG-44444444-aaaa-bbbb-cccc-000000000000",
        G2,
    )


def test_each_gpu_gets_a_child() -> None:
    assert given(BASE, "auto", "all") == [G1, G2]
    assert given(BASE, "cuda", "1") == [G2]
    assert given(BASE, "auto", "1, 0") == [G2, G1]


def test_the_cpu_gets_one_child_that_sees_no_gpu() -> None:
    assert given(BASE, "cpu", "all") == [""]
    assert given(BASE, "cpu", "0,1") == [""]


def test_without_gpus_there_is_one_child_and_torch_says_the_rest() -> None:
    assert given(BASE, "auto", "all", found=()) == [None]
    assert given(BASE, "auto", "0,1", found=()) == [None]
    assert given(BASE, "cuda", "all", found=()) == [None]


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [
        ("1", "all", ["1"]),
        ("1,0", "all", ["1", "0"]),
        ("1,0", "1", ["0"]),
        (" 1 , 0 ", "0", ["1"]),
        (f"{G2}", "all", [G2]),
        ("GPU-2222", "all", ["GPU-2222"]),
        ("0,7,1", "all", ["0"]),  # CUDA stops at the first that is not there
        ("0,-1,1", "all", ["0"]),
    ],
)
def test_cuda_visible_devices_is_respected(
    visible: str, gpus: str, expected: list[str | None]
) -> None:
    assert given(BASE | {"CUDA_VISIBLE_DEVICES": visible}, "auto", gpus) == expected


@pytest.mark.parametrize("hidden", ["", "-1", "none"])
def test_hidden_gpus_stay_hidden(hidden: str) -> None:
    base = BASE | {"CUDA_VISIBLE_DEVICES": hidden}
    assert given(base, "auto", "all") == [hidden]


@pytest.mark.parametrize(
    ("gpus", "device", "found"),
    [("2", "auto", (G1, G2)), ("0,5", "cuda", (G1,)), ("0,0", "auto", (G1,)), ("0", "cuda", ())],
)
def test_a_gpu_that_is_not_there_is_refused_by_name(
    gpus: str, device: str, found: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError, match=f"WORKER_GPUS={gpus}"):
        child_environments(BASE, device, gpus, found=found)


def program(folder: Path, body: str) -> tuple[str, ...]:
    script = folder / "nvidia_smi.py"
    script.write_text(body)
    return (sys.executable, str(script))


def test_the_list_is_asked_of_the_program(tmp_path: Path) -> None:
    assert list_gpus(program(tmp_path, f"print({TWO!r})")) == (G1, G2)


def test_a_driver_that_does_not_answer_counts_as_none(tmp_path: Path) -> None:
    assert list_gpus(("/nowhere/nvidia-smi", "-L")) == ()
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    assert list_gpus(program(tmp_path, f"print({said!r}); raise SystemExit(9)")) == ()
