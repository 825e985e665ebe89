"""What `avatar-worker bench body` measures and prints."""

from __future__ import annotations

import torch
from rich.console import Console

from tests.benchmarks.body_bench import Derived, Measured, bodies, document, tables
from tests.benchmarks.figures_of_time import in_turns

CPU = torch.device("cpu")


def test_rounds_alternate_and_the_first_does_not_count() -> None:
    done: list[str] = []
    seconds = in_turns({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2, CPU)
    assert done == ["a", "b"] * 3
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}
    assert all(each >= 0 for times in seconds.values() for each in times)


def test_the_second_body_differs_by_its_pose_correctives_alone() -> None:
    free, full = bodies().values()
    assert free.posedirs is None
    assert full.posedirs is not None
    assert full.posedirs.shape == (len(free.v_template), 3, 486)
    assert full.shapedirs is free.shapedirs


def test_the_document_and_the_tables_hold_what_was_measured() -> None:
    measured = Measured("free", 32, 10.0, 50.0, 5.0, 1e-6, ours_mb=16.0, smplx_mb=64.0)
    report = document([measured], [Derived(2, 4.0, 0.5, 2.0, 3.0)], CPU)
    assert report["forward"][0]["ratio"] == 5.0
    assert report["derivatives"][0]["rowsOverMesh"] == 0.5
    assert report["derivatives"][0]["rowsOverPoints"] == 4.0
    console = Console(width=140, record=True)
    for table in tables(report):
        console.print(table)
    printed = console.export_text()
    assert "free" in printed
    assert "0.0010" in printed
