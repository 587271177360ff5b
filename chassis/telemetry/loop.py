"""How late the event loop is: the one number that tells of anything that blocks the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from chassis.telemetry.metrics import LOOP_LAG

EVERY_SECONDS = 0.5


async def watch_loop(_app: web.Application) -> AsyncIterator[None]:
    """The context in which a timer measures by how much it is called too late."""
    task = asyncio.create_task(_watch(), name="watch the event loop")
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _watch() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        LOOP_LAG.observe(max(0.0, loop.time() - due))
