"""The caller: a real client on a real socket, and what it expects of every refusal."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from chassis import correlation
from chassis.errors import CONTENT_TYPE

HOST = "127.0.0.1"
MEMBERS = {
    "type", "title", "status", "detail", "instance", "code", "errors",
    "correlation_id", "trace_id", "retryable",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read one answer from a bare connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = {
        name.strip().title(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    return Reply(int(head[0].split()[1]), headers, body)


class Client:
    """Calls one port of 127.0.0.1. `admin` calls the admin port of the same service."""

    def __init__(self, session: aiohttp.ClientSession, port: int, admin: "Client | None" = None) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._session = session
        self._admin = admin

    @property
    def admin(self) -> "Client":
        assert self._admin is not None
        return self._admin

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Reply:
        return await self.request("POST", path, json=json, **options)

    async def patch(self, path: str, json: Any = None, **options: Any) -> Reply:
        return await self.request("PATCH", path, json=json, **options)

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        """Send a request; `options` are those of aiohttp."""
        async with self._session.request(method, self.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def send(self, request: bytes) -> Reply:
        """Send these very bytes, then wait for an answer without sending more."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(request)
            return await read_reply(reader)
        finally:
            writer.close()


class Serve(Protocol):
    """The fixture `serve`: the app behind both its ports, until the test ends."""

    async def __call__(self, app: web.Application) -> Client: ...


def refused(reply: Reply, status: int, code: str, *members: str) -> Any:
    """Assert the one shape of refusals; return the problem. `members` are those beside the usual ones."""
    assert reply.status == status, reply.text
    assert reply.headers["Content-Type"] == f"{CONTENT_TYPE}; charset=utf-8"
    problem = reply.json
    assert set(problem) == MEMBERS | set(members)
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:b2b-orders:problem:{code}"
    assert problem["title"]
    assert problem["detail"].endswith(".")
    assert not problem["detail"].endswith("..")
    assert problem["instance"].startswith("/")
    for error in problem["errors"]:
        assert set(error) == {"pointer", "detail"}
        assert error["detail"].endswith(".")
        assert not error["detail"].endswith("..")
    assert problem["retryable"] in (True, False)
    assert correlation.is_valid(problem["correlation_id"])
    assert problem["correlation_id"] == reply.headers[correlation.HEADER]
    assert len(problem["trace_id"]) == len("0af7651916cd43dd8448eb211c80319c")
    assert set(problem["trace_id"]) != {"0"}
    if status in (429, 503):
        assert int(reply.headers["Retry-After"]) > 0
    return problem
