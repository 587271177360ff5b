"""What one request makes the services send to the database, taken from the wire.

The services are started with a proxy in the place of the database. It sees everything they send,
whichever layer it comes from, and needs no privilege on the server.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import aiohttp
from sqlalchemy.engine import URL

from bench.load import call
from bench.operations import Operation, Site, Subject

PING = "PING"
_HOST = "127.0.0.1"
_COM_QUERY, _COM_PING = b"\x03", b"\x0e"


class Unreplayable(Exception):  # noqa: N818 - says what was sent
    """The services sent something that is neither a statement nor a ping."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The statements of one request, in order, and the words in them that belong to this request only.

    These are its `product`, its `order`, its `key`, and its `saga` if it has one.
    """

    statements: tuple[str, ...]
    words: dict[str, str]


class Recorder:
    """Passes everything on to the database and notes the commands of the services."""

    def __init__(self, database: URL) -> None:
        self._database = database
        self._noted: list[bytes] = []

    @asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        """The address that records, until the block ends."""
        async with await asyncio.start_server(self._serve, _HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            yield self._database.set(host=_HOST, port=port).render_as_string(hide_password=False)

    async def record(
        self, http: aiohttp.ClientSession, operation: Operation, site: Site, subjects: list[Subject]
    ) -> Recording:
        """Send a request for each subject; return what the last one made the services send.

        The requests before it let the services connect and do all that they do only once.

        Raises:
            Unreplayable: it is not made of statements and pings.

        """
        for subject in subjects:
            self._noted.clear()
            key = uuid4().hex
            answer = json.loads(await call(http, operation, site, subject, key))
            order = answer["data"].get("order", answer["data"])
            words = {"product": str(subject.product_id), "order": str(order["id"]), "key": key}
            if "saga_id" in answer:
                words["saga"] = answer["saga_id"]
        return Recording(tuple(map(_statement, self._noted)), words)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, database = await asyncio.open_connection(self._database.host, self._database.port or 3306)
        answering = asyncio.create_task(_pass_on(answers, writer))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await reader.readexactly(4)
                packet = await reader.readexactly(int.from_bytes(header[:3], "little"))
                if header[3] == 0:  # the number of a packet that begins something: not of the login
                    self._noted.append(packet)
                database.write(header + packet)
        database.close()
        await answering


def _statement(command: bytes) -> str:
    if command == _COM_PING:
        return PING
    if command.startswith(_COM_QUERY):
        return command[1:].decode(errors="surrogateescape")  # as asyncmy encodes it
    raise Unreplayable(f"The services sent the command {command[:1].hex()}, which cannot be sent again.")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()
