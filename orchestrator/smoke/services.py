"""The three services over HTTP, as the smoke test asks them.

A service that is not there yet (it does not listen, or answers 502, 503 or 504) is asked again until
the deadline of the test; what must not be done twice is asked again only if it was refused, which a
gateway's 502 and 504 do not say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Any, NoReturn, TypeVar

import aiohttp
import stamina
from aiohttp import hdrs
from pydantic import BaseModel, ValidationError

from chassis import correlation
from chassis.auth.files import WatchedFile
from chassis.errors import CONTENT_TYPE
from chassis.idempotency import HEADERS
from orchestrator.smoke.views import Index

V = TypeVar("V", bound=BaseModel)
Say = Callable[[str], object]
"""Takes the lines of the test, one by one."""
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)  # an orchestrator answers within 15 s
MOST_SAID = 500
_NOT_YET = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_REFUSES_US = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class SmokeFailed(Exception):  # noqa: N818 - says what is wrong
    """Something is not as it should be; `look_at` says where to go on."""

    def __init__(self, what: str, look_at: str = "") -> None:
        super().__init__(what)
        self.look_at = look_at


class _NotYet(Exception):  # noqa: N818 - an outcome, not an error
    """There is no answer to act on; another attempt may bring one, if `again` is safe."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer that was wanted, with the bytes that came."""

    asked: str
    body: bytes
    replayed: bool

    def read(self, view: type[V]) -> V:
        """The body as this view.

        Raises:
            SmokeFailed: it is something else.

        """
        try:
            return view.model_validate_json(self.body)
        except ValidationError as error:
            faults = ", ".join(".".join(map(str, fault["loc"])) or "body" for fault in error.errors())
            raise SmokeFailed(
                f"{self.asked} was answered without a valid {faults}: {_said(self.body)}"
            ) from None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks all three: under which correlation id, with which token, and until when for an answer."""

    http: aiohttp.ClientSession
    correlation_id: str
    token: WatchedFile[str] | None
    deadline: float
    say: Say


class Service:
    """One service at its address; `option` is what the address was given by."""

    def __init__(self, name: str, url: str, option: str, caller: Caller) -> None:
        self.name = name
        self.url = url
        self._option = option
        self._caller = caller
        self._waiting_for = ""

    async def ready(self) -> str:
        """Wait until the service does its work, and return its version.

        Raises:
            SmokeFailed: it does not in time, or what is there is not this service.

        """
        found = (await self.get("/")).read(Index)
        if found.name != self.name:
            raise SmokeFailed(
                f"{self.url} is {found.name}, not {self.name}.", f"the address in {self._option}"
            )
        await self.get("/health")
        return found.version

    async def get(self, path: str) -> Reply:
        """Read."""
        return await self._asked(_Call(hdrs.METH_GET, self.url + path))

    async def patch(self, path: str) -> Reply:
        """Change something in a way that may be repeated."""
        return await self._asked(_Call(hdrs.METH_PATCH, self.url + path))

    async def post(
        self, path: str, body: dict[str, Any], *, key: str | None = None, status: int = HTTPStatus.CREATED
    ) -> Reply:
        """Do something that is answered with `status`; with a key it may be repeated."""
        return await self._asked(_Call(hdrs.METH_POST, self.url + path, body, key, status))

    async def _asked(self, call: "_Call") -> Reply:
        """Ask until there is an answer.

        Raises:
            SmokeFailed: there is none before the deadline, or not the one that was wanted.

        """
        attempts = stamina.retry_context(
            on=self._waits, attempts=None, timeout=None, wait_initial=0.25, wait_max=2, wait_jitter=0.25
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._ask(call)
        except _NotYet as silent:
            raise SmokeFailed(
                f"{call}: {silent}",
                f"the pods and the log of {self.name} (/readyz says what it waits for), the address in"
                f" {self._option}, and whether the network lets this test through",
            ) from None
        raise AssertionError("the loop above returns or raises")  # pragma: no cover - for the type checker

    def _waits(self, error: Exception) -> bool:
        if not isinstance(error, _NotYet) or not error.again or monotonic() >= self._caller.deadline:
            return False
        if self._waiting_for != str(error):
            self._waiting_for = str(error)
            self._caller.say(f"...     waiting for {self.name} at {self.url}: {error}")
        return True

    async def _ask(self, call: "_Call") -> Reply:
        headers = {correlation.HEADER: self._caller.correlation_id}
        if call.key is not None:
            headers[HEADERS[0]] = call.key
        if self._caller.token is not None:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self._caller.token.value}"
        options: dict[str, Any] = {"headers": headers, "timeout": TIMEOUT, "allow_redirects": False}
        try:
            async with self._caller.http.request(
                call.method, call.url, json=call.body, **options
            ) as response:
                content = await response.read()
        except aiohttp.ClientConnectorError:
            raise _NotYet("it cannot be reached", again=True) from None
        except TimeoutError:
            raise _NotYet("it does not answer in time", again=call.is_idempotent) from None
        except aiohttp.ClientError:
            raise _NotYet("the connection broke", again=call.is_idempotent) from None
        if response.status != call.status:
            self._refuse(call, response, content)
        return Reply(str(call), content, response.headers.get("Idempotent-Replayed") == "true")

    def _refuse(self, call: "_Call", response: aiohttp.ClientResponse, content: bytes) -> NoReturn:
        if response.status in _NOT_YET:
            again = call.is_idempotent or response.status == HTTPStatus.SERVICE_UNAVAILABLE
            raise _NotYet(f"it answers {response.status}: {_said(content)}", again=again)
        look_at = ""
        if response.status in _REFUSES_US:
            look_at = "the token in --token-file: it has to be valid and have the scopes that --help lists"
        elif response.content_type not in (CONTENT_TYPE, "application/json"):
            look_at = f"the address in {self._option}: this is no answer of {self.name}"
        raise SmokeFailed(f"{call} was answered {response.status}: {_said(content)}", look_at)


@dataclass(frozen=True, slots=True)
class _Call:
    """What is asked, and the status that is wanted."""

    method: str
    url: str
    body: dict[str, Any] | None = None
    key: str | None = None
    status: int = HTTPStatus.OK

    @property
    def is_idempotent(self) -> bool:
        """Whether it may be sent again when nobody knows what became of it."""
        return self.method != hdrs.METH_POST or self.key is not None

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


def _said(content: bytes) -> str:
    return content[:MOST_SAID].decode(errors="replace") or "nothing"
