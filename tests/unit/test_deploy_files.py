"""The files that deploy the worker agree with the worker."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from worker.demo.users import policy
from worker.settings import describe

DOCKER = Path(__file__).resolve().parents[2] / "docker"
VARIABLES = {doc.name: doc for doc in describe()}


def variables_of(name: str) -> dict[str, str]:
    if name == "runpod/template.json":
        variables: dict[str, str] = json.loads((DOCKER / name).read_text())["env"]
        return variables
    worker = (DOCKER / name).read_text().partition("\n  worker:\n")[2]
    block = worker.partition("    environment:\n")[2].partition("\n    extra_hosts:")[0]
    return dict(re.findall(r"^      ([A-Z_0-9]+): (.+)$", block, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["compose.yaml", "runpod/template.json"])
def test_every_variable_is_one_that_the_worker_knows(name: str) -> None:
    given = variables_of(name)
    assert [variable for variable in given if variable not in VARIABLES] == []
    required = [doc.name for doc in VARIABLES.values() if doc.required]
    assert [variable for variable in required if variable not in given] == []


def test_the_pod_template_holds_no_secret_but_its_name() -> None:
    given = variables_of("runpod/template.json")
    secrets = {name: value for name, value in given.items() if VARIABLES[name].secret}
    assert secrets
    assert all(re.fullmatch(r"\{\{ RUNPOD_SECRET_\w+ \}\}", value) for value in secrets.values())


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
    assert costs["main"]([*asked, str(DOCKER / "runpod" / "prices.toml")]) == 1
    gpus = json.loads((DOCKER / "runpod" / "pod.json").read_text())["gpuTypeIds"]
    said = capsys.readouterr().out
    assert [gpu for gpu in gpus if f"{gpu}: no price yet" not in said] == []
