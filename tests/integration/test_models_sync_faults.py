"""Every row of the fault table on the MinIO gateway, and what a table cannot say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.faults.sync.cells import TABLE, Cell, run
from tests.faults.sync.plays import PLAYS
from tests.faults.sync.proxy import FaultProxy
from tests.faults.sync.scene import Scene
from worker.demo.stack import EmbeddedStack

BUCKET = "sync-faults"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def minio(stack: EmbeddedStack) -> Minio:
    client = stack.minio(stack.root)
    if not client.bucket_exists(bucket_name=BUCKET):
        client.make_bucket(bucket_name=BUCKET)
    return client


@pytest.fixture
def scene(stack: EmbeddedStack, minio: Minio, tmp_path: Path) -> Iterator[Scene]:
    with FaultProxy(stack.s3_endpoint) as proxy:
        yield Scene(minio, stack.root, proxy, BUCKET, f"run-{next(_numbers)}", tmp_path / "models")


QUICK = [cell for cell in TABLE if not cell.is_slow]
"""The others wait until patience ends: `make faults` has the time."""


@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: cell.name)
def test_a_fault_ends_as_the_table_says(cell: Cell, scene: Scene) -> None:
    assert run(cell, scene) == []


@pytest.mark.parametrize("name", PLAYS)
def test_processes_that_die_or_meet_leave_the_right_files(name: str, scene: Scene) -> None:
    assert PLAYS[name](scene) == []
