"""Connecting to MariaDB and MySQL, where the libraries leave something open."""

import asyncio
import select
from typing import Any

import asyncmy
from asyncmy.errors import OperationalError
from sqlalchemy import Connection, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ResourceClosedError

CONNECT_SECONDS = 5
IDLE_SECONDS = 1
"""A connection that was used since is taken to be alive, unless the server has closed it."""
_NO_CONNECTION = 2003  # CR_CONN_HOST_ERROR


async def connect(**options: Any) -> asyncmy.Connection:  # noqa: ANN401 - asyncmy's arguments
    """A connection that is ready for work.

    asyncmy's own timeout ends with TCP's handshake: a server that then says nothing is waited for
    without end. And a connection that breaks just after it was made is a RuntimeError there.

    Raises:
        OperationalError: there is none.

    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncmy.connect(**options)
    except (TimeoutError, RuntimeError) as error:
        raise OperationalError(_NO_CONNECTION, f"Can't connect to MySQL server ({error!r})") from error


def ping_the_idle(dialect: Dialect) -> None:
    """Spare a connection that was used a moment ago the question whether it is alive, and us a round trip.

    One that the server has closed since is asked, and replaced. What goes away in silence is found out
    after some seconds anyway, also while a ping waits for its answer.
    """
    ping = dialect.do_ping

    def ping_if_idle(connection: DBAPIConnection) -> bool:
        driver: Any = connection.driver_connection
        is_idle = driver.loop.time() - driver.last_usage >= IDLE_SECONDS
        if driver.connected and not is_idle and _is_quiet(driver._transport):  # noqa: SLF001 - nothing public has it
            return True
        return ping(connection)

    dialect.do_ping = ping_if_idle  # type: ignore[method-assign, assignment]  # there is no setting for it


def _is_quiet(transport: asyncio.Transport) -> bool:
    """Whether nothing has come unasked: a server that closes a connection ends it, and may say why."""
    if transport.is_closing():
        return False
    arrived = select.poll()  # what the event loop has not read yet
    arrived.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not arrived.poll(0)


def initialize_or_disconnect(dialect: Dialect) -> None:
    """Let the first connection of an engine break like any other.

    SQLAlchemy asks it what the server can do. If it breaks then, SQLAlchemy stumbles over the object
    that stands for it, which cannot be invalidated, and the error is none of the database.
    """
    initialize = dialect.initialize

    def initialized(connection: Connection) -> None:
        try:
            initialize(connection)
        except (NotImplementedError, ResourceClosedError) as error:
            raise OperationalError(_NO_CONNECTION, "Lost connection to MySQL server at its start") from error

    dialect.initialize = initialized  # type: ignore[method-assign]  # there is no event for it
