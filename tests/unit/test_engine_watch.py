"""The clocks of a child, on times of our own: silence, stages, jobs, and our own absence."""

from __future__ import annotations

import pytest

from worker.engine.limits import STAGE_SHARES, EngineLimits
from worker.engine.watch import Watch
from worker.errors import AvatarError, EngineCrashed, EngineTimeout

LIMITS = EngineLimits(heartbeat_timeout_s=10, stage_timeout_s={"fit": 20})


class Clock:
    """Asks the watch at each tick, as a child's keeper does, while the child beats or not."""

    def __init__(self, limits: EngineLimits = LIMITS) -> None:
        self.now_s = 1000.0
        self.watch = Watch(limits, self.now_s)
        self.watch.beat(self.now_s)

    def spend(self, seconds: float, *, beating: bool = True) -> AvatarError | None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += self.watch.tick_s
            if beating:
                self.watch.beat(self.now_s)
            if verdict := self.watch.verdict(self.now_s):
                return verdict
        return None

    def lose(self, seconds: float) -> AvatarError | None:
        """Nobody of us runs for so long, and the child is heard no more."""
        self.now_s += seconds
        return self.watch.verdict(self.now_s)


def test_a_child_that_beats_may_idle_for_ever() -> None:
    assert Clock().spend(10_000) is None


def test_silence_is_death_in_idleness_and_in_a_job() -> None:
    for busy in (False, True):
        clock = Clock()
        if busy:
            clock.watch.begin_job(1000, clock.now_s)
        assert clock.spend(9, beating=False) is None
        verdict = clock.spend(2, beating=False)
        assert isinstance(verdict, EngineCrashed)
        assert "silent for more than 10 s" in verdict.message


def test_a_child_that_loads_may_be_silent() -> None:
    watch = Watch(LIMITS, 0.0)
    for now_s in range(100):
        assert watch.verdict(float(now_s)) is None


def test_a_job_has_its_own_limit_and_each_stage_its() -> None:
    clock = Clock()
    clock.watch.begin_job(50, clock.now_s)
    clock.watch.enter("observe", clock.now_s)  # has no limit of its own
    assert clock.spend(25) is None
    clock.watch.enter("fit", clock.now_s)
    assert clock.spend(15) is None
    clock.watch.enter("fit", clock.now_s)  # progress in a stage does not begin it again
    verdict = clock.spend(7)
    assert isinstance(verdict, EngineTimeout)
    assert verdict.message == "Stage 'fit' took longer than 20 s."

    clock = Clock()
    clock.watch.begin_job(50, clock.now_s)
    clock.watch.enter("observe", clock.now_s)
    verdict = clock.spend(60)
    assert isinstance(verdict, EngineTimeout)
    assert verdict.message == "The job took longer than 50 s; it was in stage 'observe'."


def test_the_clocks_stop_with_the_job() -> None:
    clock = Clock()
    clock.watch.begin_job(50, clock.now_s)
    clock.watch.enter("fit", clock.now_s)
    clock.watch.end_job()
    clock.watch.enter("fit", clock.now_s)  # a late message
    assert clock.spend(100) is None


def test_time_in_which_we_did_not_run_counts_for_nobody() -> None:
    clock = Clock()
    clock.watch.begin_job(50, clock.now_s)
    clock.watch.enter("fit", clock.now_s)
    assert clock.spend(15) is None
    assert clock.lose(3600) is None
    assert clock.spend(3) is None
    assert isinstance(clock.spend(5), EngineTimeout)

    clock = Clock()
    assert clock.spend(5, beating=False) is None
    assert clock.lose(3600) is None
    assert clock.spend(3, beating=False) is None
    assert isinstance(clock.spend(5, beating=False), EngineCrashed)


def test_it_is_asked_often_enough_for_the_shortest_limit() -> None:
    assert Watch(EngineLimits(), 0.0).tick_s == pytest.approx(1.0)
    short = EngineLimits(heartbeat_timeout_s=2, stage_timeout_s={"fit": 0.2})
    assert Watch(short, 0.0).tick_s == pytest.approx(0.05)


def test_limits_follow_from_the_time_for_a_job() -> None:
    limits = EngineLimits.for_jobs_of(300)
    assert set(limits.stage_timeout_s) == {"photo", "observe", "fit", "measure", "export"}
    assert all(0 < limit < 300 for limit in limits.stage_timeout_s.values())
    assert sum(STAGE_SHARES.values()) > 1
    assert set(EngineLimits.for_jobs_of(60).stage_timeout_s.values()) == {30, 42}
    assert set(EngineLimits.for_jobs_of(5).stage_timeout_s.values()) == {5}


@pytest.mark.parametrize(
    "wrong", [{"heartbeat_timeout_s": 0.6}, {"setup_retry_s": ()}, {"jobs_per_child": 0}]
)
def test_limits_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be at least|needs a pause"):
        EngineLimits(**wrong)  # type: ignore[arg-type]  # wrong on purpose
