"""A service in a process of its own that is killed around the COMMIT which stores an answer.

The processes are forked by a server that has everything imported, so that one costs little.
"""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Literal

import aiohttp
from aiohttp import web
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis.process import Runner
from tests.client import HOST, Client

Moment = Literal["before", "after"]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@asynccontextmanager
async def dying(service: str, told: dict[str, Any], moment: Moment) -> AsyncIterator[Client]:
    """A client of such a service; at the end of the block it is dead."""
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_serve, args=(service, told, moment, theirs))
    await asyncio.to_thread(process.start)
    theirs.close()
    try:
        port = await asyncio.to_thread(ours.recv)
        async with aiohttp.ClientSession() as session:
            yield Client(session, port)
            assert await _exit_code(process) == -signal.SIGKILL
    finally:
        process.kill()
        await _exit_code(process)


async def _exit_code(process: ForkServerProcess) -> int | None:
    await asyncio.to_thread(process.join, 30)
    return process.exitcode


def _serve(service: str, told: dict[str, Any], moment: Moment, port: Connection) -> None:
    app: web.Application
    if service == "orders":
        app = orders.app.create_app(orders.settings.Settings(**told))
    else:
        app = orchestrator.app.create_app(orchestrator.settings.Settings(**told))
    _die(moment, f"UPDATE {service}_idempotency_keys")
    asyncio.run(_listen(app, port))


async def _listen(app: web.Application, port: Connection) -> None:
    runner = Runner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    port.send(runner.addresses[0][1])
    await asyncio.Event().wait()


def _die(moment: Moment, statement_begins: str) -> None:
    """Kill this process around the COMMIT of the first transaction that has this statement."""
    answered = False

    @event.listens_for(Engine, "before_cursor_execute")
    def _notice(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        nonlocal answered
        answered = answered or statement.startswith(statement_begins)

    def die(_session_or_connection: object) -> None:
        if answered:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before":
        event.listen(Engine, "commit", die)
    else:
        event.listen(Session, "after_commit", die)
