"""What stands between a service and its MariaDB: cuts the connection at the COMMIT which stores an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from sqlalchemy.engine import make_url

from tests.client import HOST

Where = Literal["before", "after"]
"""Of the server's COMMIT: the client knows in neither case what became of its own."""


@asynccontextmanager
async def cut(url: str, where: Where, statement_begins: str) -> AsyncIterator[str]:
    """The URL by which a service comes to its database through here.

    The first connection that sends a statement that begins so is cut at its next COMMIT; all others
    are left alone.
    """
    target = make_url(url)
    is_cut = False

    async def handle(client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        nonlocal is_cut
        server_reader, server_writer = await asyncio.open_connection(target.host, target.port)

        async def pass_back() -> None:
            while data := await server_reader.read(65_536):
                client_writer.write(data)
            client_writer.close()

        passing_back = asyncio.create_task(pass_back())
        answered = False
        while data := await client_reader.read(65_536):
            answered = answered or statement_begins.encode() in data
            if answered and not is_cut and b"COMMIT" in data:
                is_cut = True
                break
            server_writer.write(data)
        passing_back.cancel()
        await asyncio.wait({passing_back})
        if data and where == "after":
            server_writer.write(data)
            await server_reader.read(1)  # the server has committed and says so
        for writer in (client_writer, server_writer):
            writer.transport.abort()

    server = await asyncio.start_server(handle, HOST, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield target.set(host=HOST, port=port).render_as_string(hide_password=False)
        assert is_cut
    finally:
        server.close()
