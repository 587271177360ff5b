"""The baseline: recorded statements, sent again by asyncmy alone."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from asyncmy.errors import MySQLError

from bench.load import Failed
from bench.operations import Subject
from bench.recorder import PING, Recording
from chassis.database import Database
from orders.settings import Settings

_CREATES_ORDER = "INSERT INTO orders "


@asynccontextmanager
async def connections(settings: Settings, count: int) -> AsyncIterator[list[Any]]:
    """Connections of the driver, made and set up as the services do it."""
    async with AsyncExitStack() as stack:
        database = Database(settings)
        stack.push_async_callback(database.close)
        connected = [await stack.enter_async_context(database.writers.connect()) for _ in range(count)]
        yield [(await connection.get_raw_connection()).driver_connection for connection in connected]


class Replay:
    """Sends what was recorded for one request, in the place of another one."""

    def __init__(self, recording: Recording, connections: list[Any]) -> None:
        self._recording = recording
        self._free = connections
        # Lets its waiters in as they came, which a queue of connections would not.
        self._turn = asyncio.Semaphore(len(connections))
        self._words = re.compile("|".join(recording.words.values()))

    async def __call__(self, subject: Subject) -> None:
        """Send the statements for this subject, with keys of their own, when a connection is free.

        Raises:
            Failed: the database refused one.

        """
        async with self._turn:
            connection = self._free.pop()
            try:
                await self._send(connection, subject)
            except MySQLError as error:
                await connection.rollback()
                raise Failed(f"{type(error).__name__} {error.args[0]}") from error
            finally:
                self._free.append(connection)

    async def _send(self, connection: Any, subject: Subject) -> None:  # noqa: ANN401 - asyncmy has no types
        words = self._recording.words
        fresh = {words["product"]: str(subject.product_id), words["order"]: str(subject.order_id)}
        fresh |= {words[name]: uuid4().hex for name in ("key", "saga") if name in words}
        async with connection.cursor() as cursor:
            for statement in self._recording.statements:
                if statement == PING:
                    await connection.ping(reconnect=False)
                    continue
                await cursor.execute(self._words.sub(lambda found: fresh[found[0]], statement))
                await cursor.fetchall()
                if statement.startswith(_CREATES_ORDER):  # those that follow are about this order
                    fresh[words["order"]] = str(cursor.lastrowid)
