"""Several asynchronous generators as one, each item with the place of its own. Closing it closes them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def merged(sources: Sequence[AsyncGenerator[Item]]) -> AsyncGenerator[tuple[int, Item]]:
    """(place, item) as they come. The first failure of one of them is that of all."""
    if len(sources) == 1:  # no task in between
        async with aclosing(sources[0]) as only:
            async for item in only:
                yield 0, item
        return
    there: asyncio.Queue[tuple[int, Item] | Exception | None] = asyncio.Queue(maxsize=len(sources))

    async def pump(place: int, source: AsyncGenerator[Item]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await there.put((place, item))
            await there.put(None)
        except Exception as error:  # whatever it is, it is raised where the items are read
            await there.put(error)

    tasks = [asyncio.create_task(pump(place, source)) for place, source in enumerate(sources)]
    try:
        n_left = len(tasks)
        while n_left:
            found = await there.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                n_left -= 1
            else:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
