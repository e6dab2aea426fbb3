"""A question that costs much is not worked out for everybody who asks it."""

import asyncio
from typing import Any

import pytest

from hub.costly_answers import MOST, CostlyAnswers


async def test_a_costly_answer_is_shown_again_for_a_while_and_a_cheap_one_never(clock: Any) -> None:
    answers, asked = CostlyAnswers[int](clock), list[str]()

    async def work(question: str, seconds: float) -> int:
        asked.append(question)
        clock._move(clock.monotonic() + seconds)
        return len(asked)

    assert await answers.get("cheap", lambda: work("cheap", 0.5)) == 1
    assert await answers.get("cheap", lambda: work("cheap", 0.5)) == 2
    assert await answers.get("dear", lambda: work("dear", 10)) == 3
    await clock.advance(199)
    assert await answers.get("dear", lambda: work("dear", 10)) == 3
    await clock.advance(2)
    assert await answers.get("dear", lambda: work("dear", 10)) == 4


async def test_many_who_ask_at_once_are_given_one_answer(clock: Any) -> None:
    answers, begun, may_end = CostlyAnswers[int](clock), 0, asyncio.Event()

    async def work() -> int:
        nonlocal begun
        begun += 1
        await may_end.wait()
        clock._move(clock.monotonic() + 5)
        return begun

    asking = [asyncio.create_task(answers.get("day", work)) for _ in range(20)]
    await clock.settle()
    may_end.set()
    assert await asyncio.gather(*asking) == [1] * 20


async def test_what_fails_is_not_kept_and_what_is_kept_is_bounded(clock: Any) -> None:
    answers = CostlyAnswers[int](clock)

    async def fail() -> int:
        raise OSError("the disk is gone")

    async def work() -> int:
        clock._move(clock.monotonic() + 2)
        return 1

    with pytest.raises(OSError, match="gone"):
        await answers.get("x", fail)
    for number in range(MOST + 5):
        assert await answers.get(str(number), work) == 1
    assert len(answers._kept) == MOST
