"""Connecting to MariaDB and MySQL, where the libraries leave something open."""

import asyncio
from typing import Any

import asyncmy
from asyncmy.errors import OperationalError
from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import ResourceClosedError

CONNECT_SECONDS = 5
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
