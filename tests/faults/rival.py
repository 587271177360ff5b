"""Somebody who cancels orders behind the back of their sagas, so that these have to be compensated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from tests.faults.world import World


@asynccontextmanager
async def canceling(world: World, body: dict[str, Any], *, at_work: bool = True) -> AsyncIterator[None]:
    """Cancel every order of the body's customer that waits for its confirmation, until the block ends."""
    task = asyncio.create_task(_cancel(world, body["customer_id"]) if at_work else asyncio.sleep(0))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _cancel(world: World, customer_id: int) -> None:
    url = f"{world.services.orders.url}/admin/orders"
    query = {"status": "CREATED", "customer_id": str(customer_id), "limit": "100"}
    while True:
        with suppress(aiohttp.ClientError, TimeoutError, KeyError):
            async with world.http.get(f"{url}/find-all", params=query) as found:
                waiting = (await found.json(content_type=None))["data"]
            for order in waiting:
                async with world.http.post(f"{url}/{order['id']}/cancel", json={}):
                    pass
        await asyncio.sleep(0.05)
