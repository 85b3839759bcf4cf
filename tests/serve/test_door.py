"""Who takes a new connection, of several that listen at one socket."""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from mohole.serve.door import Counts, Door


class Silent(asyncio.Protocol):
    """What `Door` needs of a protocol, and nothing more."""

    when_lost: Callable[[], None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        assert self.when_lost is not None
        self.when_lost()


def _doors(stack: ExitStack, n: int) -> tuple[tuple[str, int], Counts, list[Door]]:
    """n doors at one socket, all of this process."""
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
    counts, made = Counts(n), []
    for own in range(n):
        each = stack.enter_context(listening.dup())  # an event loop has one reader for a descriptor
        made.append(Door(each, counts, own, Silent))  # type: ignore[arg-type]
        stack.callback(made[-1].close)
    return listening.getsockname()[:2], counts, made


def test_connections_are_shared_out_evenly_also_after_some_have_gone() -> None:
    async def share() -> None:
        with ExitStack() as stack:
            address, counts, _ = _doors(stack, 3)
            there = [(await asyncio.open_connection(*address))[1] for _ in range(30)]
            await _until(lambda: sum(counts.each) == 30)
            assert counts.each == [10, 10, 10]
            for writer in there[:18]:
                writer.close()
            await _until(lambda: sum(counts.each) == 12)
            there += [(await asyncio.open_connection(*address))[1] for _ in range(9)]
            await _until(lambda: sum(counts.each) == 21)
            assert max(counts.each) - min(counts.each) <= 1
            for writer in there[18:]:
                writer.close()
            await _until(lambda: counts.each == [0, 0, 0])

    asyncio.run(share())


def test_what_a_process_with_fewer_does_not_take_another_does() -> None:
    async def share() -> None:
        with ExitStack() as stack:
            address, counts, doors = _doors(stack, 2)
            doors[1].close()  # as one that is dead, or busy for long
            there = [(await asyncio.open_connection(*address))[1] for _ in range(5)]
            await _until(lambda: counts.each == [5, 0])
            for writer in there:
                writer.close()
            await _until(lambda: counts.each == [0, 0])

    asyncio.run(share())


def test_where_there_is_no_room_for_a_connection_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mohole.serve.door._UNTIL_ROOM", 0.05)
    tried = 0

    class Full(socket.socket):
        """Its process has no room the first time."""

        def accept(self) -> tuple[socket.socket, Any]:
            nonlocal tried
            tried += 1
            if tried == 1:
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    async def come() -> None:
        with Full(fileno=socket.create_server(("127.0.0.1", 0)).detach()) as listening:
            counts = Counts(1)
            door = Door(listening, counts, 0, Silent)  # type: ignore[arg-type]
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            await _until(lambda: counts.each == [1])
            writer.close()
            await _until(lambda: counts.each == [0])
            door.close()

    asyncio.run(come())
    assert tried >= 2


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)
