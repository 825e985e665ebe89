"""The figures of `avatar-worker bench queue` and the benchmark's place in the command."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType

import pytest
from rich.console import Console

from tests.benchmarks.queue_bench import PARTS, Measured, tables
from tests.benchmarks.queue_figures import percentile, ratio
from tests.benchmarks.queue_peers import HERE


@pytest.fixture
def dispatcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_dispatcher", HERE / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured() -> Measured:
    return Measured(
        rates={1: {"worker": [90.0, 300.0, 50.0], "node": [100.0, 100.0, 100.0]}},
        pickups_ms={"worker": [1.0, 3.0, 2.0], "node": [4.0]},
        sigterms_ms=[20.0, 30.0],
        sigkills_s=[61.23],
    )


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(200, 0, -1)]
    assert percentile(values, 0.5) == 100
    assert percentile(values, 0.99) == 198
    assert percentile([7.0], 0.99) == 7
    assert percentile([7.0], 0.0) == 7


def test_a_ratio_compares_neighbours_in_time_and_takes_the_middle_one() -> None:
    # The machine was three times as slow in the second round: the ratio does not see it.
    assert ratio({"worker": [50.0, 20.0, 60.0], "node": [100.0, 33.3, 100.0]}) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="longer"):
        ratio({"worker": [50.0], "node": [100.0, 100.0]})


def test_the_json_has_the_agreed_names() -> None:
    figures = json.loads(json.dumps(measured().to_json()))
    assert figures["throughput_ratio_vs_node"] == {"1": 0.9}
    assert figures["jobs_per_s"] == {"worker": {"1": 90}, "node": {"1": 100}}
    assert figures["pickup_ms"]["worker"] == {
        "p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0, "n": 3
    }  # fmt: skip
    assert figures["sigterm_to_wait_ms"]["p50"] == 20.0
    assert figures["sigkill_to_elsewhere_s"] == {"max": 61.2, "n": 1}


def test_what_was_not_measured_is_left_out_and_not_zero() -> None:
    assert Measured().to_json() == {}
    assert tables({}, "bullmq5") == []


def test_the_tables_show_every_figure() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        for table in tables(measured().to_json(), "bullmq5"):
            console.print(table)
    shown = captured.get()
    for text in ("bullmq5", "0.90", "pickup, worker", "SIGTERM to job back in wait", "61.2"):
        assert text in shown


def test_the_command_names_its_benchmarks_and_refuses_others(
    dispatcher: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["avatar-worker bench", "--help"])
    dispatcher.main()
    overview = capsys.readouterr().out
    for name, (module, _) in dispatcher.BENCHES.items():
        assert f"  {name} " in overview
        assert importlib.util.find_spec(module) is not None
    monkeypatch.setattr(sys, "argv", ["avatar-worker bench", "nonsense"])
    with pytest.raises(SystemExit, match="There is no benchmark 'nonsense'"):
        dispatcher.main()


def test_a_benchmark_gets_its_own_arguments(
    dispatcher: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["avatar-worker bench", "queue", "--help"])
    with pytest.raises(SystemExit) as ended:
        dispatcher.main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "avatar-worker bench queue" in shown
    assert all(part in shown for part in PARTS)
