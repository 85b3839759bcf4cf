"""Answers that are made in the event loop in turn."""

import asyncio
import time

import pytest

from mohole.serve.line import Line


def test_who_comes_first_is_served_first_and_who_asks_meanwhile_is_heard_before_the_line_is_through() -> None:
    made: list[int] = []

    def slow(number: int) -> int:
        time.sleep(0.003)  # more than is done at once
        made.append(number)
        return number

    async def ask() -> list[int]:
        line: Line[int] = Line()
        heard: list[int] = []
        loop = asyncio.get_running_loop()
        asked = [asyncio.create_task(line.made(lambda own=own: slow(own))) for own in range(6)]
        loop.call_later(0.004, lambda: heard.append(len(made)))
        found = await asyncio.gather(*asked)
        assert heard
        assert heard[0] < 6, "the loop saw to something else only when all were done"
        return found

    assert asyncio.run(ask()) == made == list(range(6))


def test_quick_answers_are_made_several_at_once() -> None:
    async def ask() -> int:
        line: Line[int] = Line()
        n_rounds = 0

        def count() -> None:
            nonlocal n_rounds
            n_rounds += 1
            if not done.is_set():
                loop.call_soon(count)

        loop, done = asyncio.get_running_loop(), asyncio.Event()
        asked = [asyncio.create_task(line.made(lambda: 1)) for _ in range(50)]
        loop.call_soon(count)
        assert sum(await asyncio.gather(*asked)) == 50
        done.set()
        return n_rounds

    assert asyncio.run(ask()) < 25


def test_a_failure_is_the_askers_own_and_who_went_away_is_passed_over() -> None:
    made: list[str] = []

    def fail() -> str:
        raise LookupError("no such thing")

    def note() -> str:
        made.append("x")
        return "x"

    async def ask() -> None:
        line: Line[str] = Line()
        failing, gone, last = (asyncio.create_task(line.made(make)) for make in (fail, note, note))
        await asyncio.sleep(0)  # all stand in line
        gone.cancel()
        with pytest.raises(LookupError, match="no such thing"):
            await failing
        assert await last == "x"
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await line.made(note) == "x"  # the line goes on after it was empty

    asyncio.run(ask())
    assert made == ["x", "x"]
