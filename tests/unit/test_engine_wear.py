"""When a process that works is replaced all the same."""

from __future__ import annotations

import pytest

from worker.engine.limits import EngineLimits
from worker.engine.messages import Beat, Built, Failed
from worker.engine.wear import Wear
from worker.errors import AvatarError, GpuLost, NoPerson, OutOfMemory

MIB = 1024**2
LIMITS = EngineLimits(jobs_per_child=10, rss_growth_bytes=100 * MIB, cuda_growth_bytes=1000 * MIB)
BUILT = Built(
    files=(),
    inspection_files=frozenset(),
    measurements_cm={},
    confidence="low",
    warnings=(),
    view_iou={},
    stage_seconds={},
    sources={},
)


def failed(error: AvatarError, *, leaving: bool = False) -> Failed:
    return Failed.from_error(error, leaving=leaving)


def memory(rss_mib: int = 600, cuda_mib: int = 0) -> Beat:
    return Beat(rss_bytes=rss_mib * MIB, cuda_reserved_bytes=cuda_mib * MIB)


def test_a_steady_process_is_replaced_for_its_age_only() -> None:
    wear = Wear(LIMITS)
    assert [wear.after(BUILT, memory()) for _ in range(9)] == [None] * 9
    assert wear.after(BUILT, memory()) == "it has done 10 jobs"


def test_growth_counts_from_the_first_avatar() -> None:
    wear = Wear(LIMITS)
    assert wear.after(failed(NoPerson()), memory(200)) is None  # hardly anything was loaded yet
    assert wear.after(BUILT, memory(600)) is None
    assert wear.after(BUILT, memory(700)) is None
    assert wear.after(failed(NoPerson()), memory(701)) == "its memory has grown by 101 MiB"


def test_cuda_memory_counts_by_itself() -> None:
    wear = Wear(LIMITS)
    assert wear.after(BUILT, memory(cuda_mib=5000)) is None
    assert wear.after(BUILT, memory(cuda_mib=6000)) is None
    assert wear.after(BUILT, memory(cuda_mib=6001)) == "its CUDA memory has grown by 1001 MiB"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (failed(OutOfMemory()), "it ran out of memory at lower cost too"),
        (failed(GpuLost(), leaving=True), "its CUDA context is lost"),
        (failed(NoPerson()), None),
        (failed(GpuLost()), None),
    ],
)
def test_how_a_job_ended_may_end_the_process(answer: Failed, why: str | None) -> None:
    assert Wear(LIMITS).after(answer, memory()) == why
