"""Calls to the services from scripts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered, with the bytes that came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body, parsed."""
        return json.loads(self.body)


class UnexpectedReply(Exception):  # noqa: N818 - says what was answered
    """A service answered something else than it should."""


async def get(http: aiohttp.ClientSession, url: str, **query: str) -> Reply:
    """Read.

    Raises:
        UnexpectedReply: the status is not 200.

    """
    async with http.get(url, params=query) as response:
        return await _reply(response, (200,))


async def post(
    http: aiohttp.ClientSession,
    url: str,
    body: object,
    *,
    expect: tuple[int, ...],
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send `body` as JSON.

    Raises:
        UnexpectedReply: the status is none of `expect`.

    """
    async with http.post(url, json=body, headers=headers) as response:
        return await _reply(response, expect)


async def _reply(response: aiohttp.ClientResponse, expect: tuple[int, ...]) -> Reply:
    reply = Reply(response.status, response.headers, await response.read())
    if reply.status not in expect:
        said = reply.body.decode(errors="replace")
        raise UnexpectedReply(f"{response.method} {response.url} answered {reply.status}: {said}")
    return reply
