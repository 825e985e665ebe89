"""Questions and answers on one connection: whose is whose, and what happens when it goes down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.consuming import settings_of
from tests.fakes.passage import Passage, passage_to
from worker.consumer import connection
from worker.consumer.connection import connect
from worker.consumer.line import Line
from worker.demo.stack import EmbeddedStack
from worker.settings import QueueSettings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.4)


def line_of(settings: QueueSettings) -> Line:
    return Line(connect(settings, retries=0).connection_pool.make_connection())


@pytest.fixture
async def passage(stack: EmbeddedStack) -> AsyncIterator[Passage]:
    async with passage_to(stack.redis_port) as running:
        yield running


@pytest.fixture
async def line(stack: EmbeddedStack, passage: Passage, queue: str) -> AsyncIterator[Line]:
    there = stack.redis_url.replace(f":{stack.redis_port}/", f":{passage.port}/")
    line = line_of(settings_of(stack, queue, REDIS_URL=there))
    yield line
    await line.close()


@pytest.fixture
async def client(stack: EmbeddedStack, queue: str) -> AsyncIterator[Any]:
    client = connect(settings_of(stack, queue))
    yield client
    await client.aclose()


async def sizes(line: Line) -> list[int]:
    """Lengths of texts that do not fit into one read, each asked for without waiting."""
    texts = ("x" * (length * 50_000) for length in range(5))
    answers = await asyncio.gather(*(line.execute_command("ECHO", text) for text in texts))
    return [len(answer) for answer in answers]


async def test_each_gets_its_own_answer_whatever_the_others_get(line: Line, client: Any) -> None:
    echo = client.register_script("return ARGV[1]")
    fail = client.register_script("return redis.error_reply('NO: ' .. ARGV[1])")
    await client.script_flush()
    asked = [asyncio.create_task(line.run(fail if n == 3 else echo, ["k"], [n])) for n in range(6)]
    given_up = asyncio.create_task(line.execute_command("ECHO", "given up"))
    await asyncio.sleep(0)
    given_up.cancel()
    answers = await asyncio.gather(*asked, given_up, return_exceptions=True)
    assert [answer for n, answer in enumerate(answers[:6]) if n != 3] == list("01245")
    assert isinstance(answers[3], ResponseError)
    assert isinstance(answers[6], asyncio.CancelledError)
    assert await sizes(line) == [0, 50_000, 100_000, 150_000, 200_000]


async def test_all_that_is_asked_at_one_moment_goes_over_one_connection(
    line: Line, client: Any
) -> None:
    before = (await client.info("stats"))["total_connections_received"]
    await asyncio.gather(*(line.execute_command("PING") for _ in range(20)))
    assert (await client.info("stats"))["total_connections_received"] == before + 1


async def test_an_error_is_of_the_class_that_redis_py_gives_it(line: Line, client: Any) -> None:
    """Whoever repeats a write does it for some classes and not for others."""
    answer = client.register_script("return redis.error_reply(ARGV[1])")
    with pytest.raises(ReadOnlyError):
        await line.run(answer, [], ["READONLY You can't write against a read only replica."])
    with pytest.raises(RedisConnectionError):
        await line.run(answer, [], ["LOADING Redis is loading the dataset in memory"])


async def test_text_that_is_none_spoils_nobodys_answer(line: Line, client: Any) -> None:
    odd = client.register_script("return '\\255'")
    asked = [line.run(odd, [], []), line.execute_command("ECHO", "é")]
    assert await asyncio.gather(*asked) == ["\N{REPLACEMENT CHARACTER}", "é"]


async def test_a_line_that_is_cut_fails_what_is_on_it_and_the_next_question_makes_another(
    line: Line, client: Any, passage: Passage
) -> None:
    wait = client.register_script("return redis.call('BLPOP', KEYS[1], 0)")
    await line.run(wait, ["nothing"], [])
    asked = [asyncio.create_task(line.execute_command("BLPOP", "nothing", 0)) for _ in range(3)]
    await asyncio.sleep(0)
    passage.cut()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RedisConnectionError] * 3
    assert await line.execute_command("ECHO", "again") == "again"


async def test_a_line_that_is_frozen_is_left_for_another(line: Line, passage: Passage) -> None:
    await line.execute_command("PING")
    passage.go_dead()
    asked = [asyncio.create_task(line.execute_command("PING")) for _ in range(3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RedisTimeoutError] * 3
    assert await line.execute_command("ECHO", "again") == "again"


async def test_a_line_that_is_silent_while_redis_answers_elsewhere_is_left(
    line: Line, passage: Passage
) -> None:
    line.poke()  # not connected yet: nothing is asked
    await line.execute_command("PING")
    line.poke()
    assert await line.execute_command("ECHO", "mine") == "mine"  # not the answer to the poke
    passage.go_dead()
    line.poke()
    asked = asyncio.create_task(line.execute_command("PING"))
    await asyncio.sleep(0.1)
    line.leave_if_silent(0.2)
    assert not asked.done(), "it may yet answer"
    line.leave_if_silent(0.05)
    with pytest.raises(RedisTimeoutError):
        await asked
    line.poke()  # down: nothing is asked
    async with asyncio.timeout(0.3):  # sooner than the line itself would have given up
        assert await line.execute_command("ECHO", "again") == "again"


async def test_an_answer_that_comes_in_time_restarts_the_clock(line: Line) -> None:
    for _ in range(4):
        assert await line.execute_command("BLPOP", "nothing", 0.15) is None


async def test_a_redis_that_is_gone_is_told_to_everybody_who_asked(stack: EmbeddedStack) -> None:
    line = line_of(settings_of(stack, "q", REDIS_URL="redis://127.0.0.1:1"))
    answers = await asyncio.gather(
        *(line.execute_command("PING") for _ in range(3)), return_exceptions=True
    )
    assert [isinstance(answer, RedisError | OSError) for answer in answers] == [True] * 3
    await line.close()


async def test_whoever_waits_is_told_when_the_line_is_closed(line: Line) -> None:
    waiting = asyncio.create_task(line.execute_command("BLPOP", "nothing", 0))
    await asyncio.sleep(0)
    while line._wire is None:  # noqa: ASYNC110 - until it has connected
        await asyncio.sleep(0.01)
    await line.close()
    with pytest.raises(RedisConnectionError):
        await waiting
