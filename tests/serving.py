"""Services of this process behind real sockets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from aiohttp import web
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from chassis.app import ADMIN
from chassis.process import Runner
from tests.client import HOST, Client, Serve


@asynccontextmanager
async def sockets() -> AsyncIterator[Serve]:
    """What serves apps until the block ends."""
    async with AsyncExitStack() as stack:

        async def start(app: web.Application) -> Client:
            public, admin = Runner(app), web.AppRunner(app[ADMIN], access_log=None)
            ports = []
            for runner in (admin, public):
                stack.push_async_callback(runner.cleanup)
                await runner.setup()
                await web.TCPSite(runner, HOST, 0).start()
                ports.append(runner.addresses[0][1])
            session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            )
            AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
            return Client(session, ports[1], Client(session, ports[0]))

        yield start
