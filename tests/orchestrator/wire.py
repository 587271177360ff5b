"""What stands between a service and its peer: passes every call on, unless a test breaks it.

    wire.breaks("/confirm", answers(503), loses_the_answer)

lets the next two calls whose path ends so meet these faults, one each, and no other call any.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import hdrs, web
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

HOST = "127.0.0.1"
WAIT_SECONDS = 60
PassOn = Callable[[], Awaitable[web.Response]]
Fault = Callable[[web.Request, PassOn], Awaitable[web.StreamResponse]]


class Wire:
    """Listens at `url` for calls to `target`; `calls` lists them by method and path."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.url = ""
        self.target = ""
        self.down = False
        self.calls: list[str] = []
        self.session = session
        self._faults: dict[str, list[Fault]] = {}

    def breaks(self, path_end: str, *faults: Fault) -> None:
        """Let the next calls to paths that end so meet these faults, one each, and no others."""
        self._faults[path_end] = list(faults)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass a call on, or do to it what was planned."""
        self.calls.append(f"{request.method} {request.path}")
        body = await request.read()

        async def pass_on() -> web.Response:
            headers = _end_to_end(request.headers)
            async with self.session.request(
                request.method, self.target + request.path_qs, headers=headers, data=body
            ) as response:
                headers = _end_to_end(response.headers)
                return web.Response(status=response.status, headers=headers, body=await response.read())

        try:
            return await self._fault_for(request)(request, pass_on)
        except aiohttp.ClientError:  # the peer really is down
            return _cut(request)

    def _fault_for(self, request: web.Request) -> Fault:
        if self.down:
            return breaks_off
        for path_end, faults in self._faults.items():
            if faults and request.path.endswith(path_end):
                return faults.pop(0)
        return passes_on


@asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    """A wire on a free port, until the block ends; its `target` can be set later."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        AioHttpClientInstrumentor.uninstrument_session(session)  # a wire is no part of a trace
        wire = Wire(session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", wire.handle)
        # Whoever hangs up gives up its call; what hangs at the end is not waited for.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            wire.url = f"http://{HOST}:{runner.addresses[0][1]}"
            yield wire
        finally:
            await runner.cleanup()


# --- faults -------------------------------------------------------------------------------------


async def passes_on(_request: web.Request, pass_on: PassOn) -> web.StreamResponse:
    """No fault at all."""
    return await pass_on()


def answers(status: int, body: Any = None) -> Fault:
    """The peer never hears of the call, the caller gets this answer."""

    async def fault(_request: web.Request, _pass_on: PassOn) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return fault


async def breaks_off(request: web.Request, _pass_on: PassOn) -> web.StreamResponse:
    """The peer never hears of the call, the connection breaks."""
    return _cut(request)


async def loses_the_answer(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
    """The peer does its work, the connection breaks before its answer comes."""
    await pass_on()
    return _cut(request)


async def cuts_the_answer(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
    """The peer does its work, the connection breaks in the middle of its answer."""
    answer = await pass_on()
    assert isinstance(answer.body, bytes)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    _cut(request)
    return response


async def never_answers(_request: web.Request, _pass_on: PassOn) -> web.StreamResponse:
    """The peer never hears of the call, and nothing comes back."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def after(act: Callable[[int], Awaitable[None]]) -> Fault:
    """Somebody acts on the order just before the call for it arrives."""

    async def fault(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        await act(int(request.path.split("/")[-2]))
        return await pass_on()

    return fault


class Held:
    """Calls that are held until they are let go.

    With `done`, the peer has done its work already and it is the answer that is held.
    """

    def __init__(self, *, done: bool = False) -> None:
        self._done = done
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()

    async def arrived(self) -> None:
        """Wait until there is one."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._arrived.wait()

    def let_go(self) -> None:
        self._gone.set()

    async def __call__(self, _request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        answer = await pass_on() if self._done else None
        self._arrived.set()
        await self._gone.wait()
        return answer or await pass_on()


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()  # nobody gets it


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are not of one connection."""
    own = {hdrs.HOST, hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.CONNECTION, hdrs.SERVER, hdrs.DATE}
    return {name: value for name, value in headers.items() if name.title() not in own}
