"""The files that deploy the worker agree with the worker."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from worker.demo.users import policy
from worker.settings import describe

DOCKER = Path(__file__).resolve().parents[2] / "docker"
VARIABLES = {doc.name: doc for doc in describe()}
HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "runpod.md"
# Of RunPod's description of its API (OpenAPI, v1, read on 21 November 2026): every field of
# TemplateCreateInput, and of PodCreateInput those that are used.
TEMPLATE_FIELDS = {
    "category",
    "containerDiskInGb",
    "containerRegistryAuthId",
    "dockerEntrypoint",
    "dockerStartCmd",
    "env",
    "imageName",
    "isPublic",
    "isServerless",
    "name",
    "ports",
    "readme",
    "volumeInGb",
    "volumeMountPath",
}
POD_FIELDS = {
    "allowedCudaVersions",
    "cloudType",
    "computeType",
    "dataCenterIds",
    "gpuCount",
    "gpuTypeIds",
    "interruptible",
    "name",
    "networkVolumeId",
    "templateId",
}
POD_VALUES = {
    "allowedCudaVersions": {"13.0", "12.9", "12.8"},
    "cloudType": {"SECURE", "COMMUNITY"},
    "computeType": {"GPU", "CPU"},
    "gpuTypeIds": {"NVIDIA L4", "NVIDIA GeForce RTX 4090", "NVIDIA A40", "NVIDIA L40S"},
}


def variables_of(name: str) -> dict[str, str]:
    if name.startswith("runpod/"):
        variables: dict[str, str] = json.loads((DOCKER / name).read_text())["env"]
        return variables
    worker = (DOCKER / name).read_text().partition("\n  worker:\n")[2]
    block = worker.partition("    environment:\n")[2].partition("\n    extra_hosts:")[0]
    return dict(re.findall(r"^      ([A-Z_0-9]+): (.+)$", block, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["compose.yaml", "runpod/template.json", "runpod/licensed.json"])
def test_every_variable_is_one_that_the_worker_knows(name: str) -> None:
    given = variables_of(name)
    assert [variable for variable in given if variable not in VARIABLES] == []
    if name == "runpod/licensed.json":
        given = variables_of("runpod/template.json") | given
    required = [doc.name for doc in VARIABLES.values() if doc.required]
    assert [variable for variable in required if variable not in given] == []


@pytest.mark.parametrize("name", ["runpod/template.json", "runpod/licensed.json"])
def test_the_pod_template_holds_no_secret_but_its_name(name: str) -> None:
    given = variables_of(name)
    secrets = {name: value for name, value in given.items() if VARIABLES[name].secret}
    assert secrets
    assert all(re.fullmatch(r"\{\{ RUNPOD_SECRET_\w+ \}\}", value) for value in secrets.values())


def test_template_and_pod_have_runpods_own_fields_and_values() -> None:
    template = json.loads((DOCKER / "runpod" / "template.json").read_text())
    pod = json.loads((DOCKER / "runpod" / "pod.json").read_text())
    assert template.keys() <= TEMPLATE_FIELDS
    assert pod.keys() <= POD_FIELDS
    for field, known in POD_VALUES.items():
        given = pod[field]
        assert set(given if isinstance(given, list) else [given]) <= known
    assert template["volumeMountPath"] == VARIABLES["MODEL_SYNC_LOCAL_ROOT"].default
    assert template["ports"] == [f"{VARIABLES['WORKER_PORT'].default}/http"]


def test_a_new_digest_reaches_the_pods_image_and_what_it_says_of_itself(tmp_path: Path) -> None:
    """The two lines of "Update" in the howto, as they stand there."""
    update = HOWTO.read_text().partition("- **Update**")[2].partition("```sh\n")[2]
    replace, send = update.partition("  ```")[0].strip().splitlines()
    template = tmp_path / "template.json"
    template.write_text((DOCKER / "runpod" / "template.json").read_text())
    digest = "sha256:" + "ab" * 32
    script = f"runpod() {{ printf '%s\\n' \"$@\"; }}\nNEW_DIGEST={digest}\n{replace}\n{send}"
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    *call, body = done.stdout.split("\n", 4)
    assert call == ["pods/POD", "-X", "PATCH", "-d"]
    sent = json.loads(body)
    assert sent["imageName"].endswith(f"@{digest}")
    assert sent["env"] == json.loads(template.read_text())["env"]
    assert sent["env"]["IMAGE_DIGEST"] == digest


def test_the_storage_policy_is_the_one_that_the_tests_work_under() -> None:
    tested = policy("tryfitted", read=("uploads",), write=("avatars", "work"))
    assert json.loads((DOCKER / "storage-policy.json").read_text()) == tested


def test_users_are_made_with_fresh_passwords_of_which_the_file_holds_hashes() -> None:
    def make() -> tuple[str, dict[str, str]]:
        done = subprocess.run(
            [DOCKER / "redis" / "make-users.sh"], capture_output=True, text=True, check=True
        )
        return done.stdout, dict(line.split() for line in done.stderr.splitlines())

    text, passwords = make()
    assert set(passwords) == {"operator", "avatar-worker", "avatar-api"}
    for user, password in passwords.items():
        hashed = hashlib.sha256(password.encode()).hexdigest()
        assert re.search(rf"^user {user} on #{hashed} ", text, flags=re.MULTILINE)
        assert password not in text
    assert not set(passwords.values()) & set(make()[1].values())


def test_costs_come_from_the_readers_own_seconds_and_prices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = runpy.run_path(str(DOCKER / "runpod" / "costs.py"))
    # 3,600 s at 1 an hour; 48 of them keep two pods busy all day.
    assert costs["cost"](3600.0, 1.0, 48) == costs["Cost"](1.0, 1.0, pods=2, share=1.0)
    quarter = costs["cost"](36.0, 2.0, 600)
    assert (quarter.busy, quarter.always_on, quarter.pods) == (0.02, 0.08, 1)
    assert quarter.share == pytest.approx(0.25)
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "€"\n[per_hour]\nL4 = 2\nother = 0\n')
    asked = ["--seconds", "36", "--per-day", "600", "--prices"]
    assert costs["main"]([*asked, str(prices)]) == 0
    said = capsys.readouterr().out
    assert "€0.02 an avatar when always busy; €0.08 with 1 pod always on (25%" in said
    assert "other: no price yet" in said
    given = tomllib.loads((DOCKER / "runpod" / "prices.toml").read_text())
    gpus = json.loads((DOCKER / "runpod" / "pod.json").read_text())["gpuTypeIds"]
    assert [gpu for gpu in gpus if gpu not in given["per_hour"]] == []
    prices.write_text('currency = "€"\n[per_hour]\nL4 = 0\n')
    assert costs["main"]([*asked, str(prices)]) == 1


def test_the_costs_on_the_page_are_what_the_program_says() -> None:
    block = (
        HOWTO.read_text().partition("$ python3 docker/runpod/costs.py ")[2].partition("\n```")[0]
    )
    asked, _, shown = block.partition("\n")
    program = DOCKER / "runpod" / "costs.py"
    done = subprocess.run(
        [sys.executable, program, *asked.split()], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == shown
