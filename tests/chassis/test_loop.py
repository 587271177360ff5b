import asyncio
import time

from aiohttp import web

from chassis.telemetry import loop
from tests.observed import Sample


async def test_what_blocks_the_event_loop_is_measured() -> None:
    late = Sample("b2b_event_loop_lag_seconds_sum")
    turns = Sample("b2b_event_loop_lag_seconds_count")
    runner = web.AppRunner(app := web.Application())
    app.cleanup_ctx.append(loop.watch_loop)
    await runner.setup()
    await asyncio.sleep(0)

    time.sleep(loop.EVERY_SECONDS + 0.3)  # noqa: ASYNC251 - this is what it is about
    while turns.moved < 1:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)
    await runner.cleanup()

    assert late.moved >= 0.3
