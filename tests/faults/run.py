"""One run of a case: its clients and everything they saw, its faults, and what was found wrong."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import monotonic, time
from typing import Any

import aiohttp

from dev.stack import Service
from tests.faults.network import CLIENT
from tests.faults.world import World

JOB = "/orchestrator/create-and-confirm-order"
PATIENCE_SECONDS = 60
"""How long a client repeats its request."""


class ScenarioFailed(Exception):  # noqa: N818 - says what did not happen
    """What a case wanted to do did not happen: it has shown nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request and what its client saw; `status` is None when there was no answer, for this `error`."""

    key: str
    status: int | None
    body: bytes = b""
    retry_after: str | None = None
    error: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def is_final(self) -> bool:
        """Whether this is the one answer of its key."""
        if self.status is None:
            return False
        return self.status == 201 or (self.status < 500 and self.json.get("retry_needs_new_key") is True)


@dataclass(frozen=True, slots=True)
class Violation:
    """What was found, of which invariant."""

    invariant: str
    found: str


@dataclass
class Run:
    """What a case gets, and what it leaves behind.

    Every key begins with the name of the run and is the correlation id of its request, too: so orders
    and sagas of a run, and of a key, are found in the databases.
    """

    name: str
    world: World
    random: Random
    calls: list[Call] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    """When something was broken, in seconds since the epoch."""
    healed_at: float = 0.0
    tolerated: frozenset[int] = frozenset()
    """Statuses that the case causes on purpose, beside those that clients must expect."""
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was asked for with each key."""
    opened: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What is closed when everything was checked: for a case that works in a world of its own."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def key(self) -> str:
        """A new key."""
        return f"{self.name}-{next(self._numbers)}"

    def fault(self) -> None:
        """Something was broken now."""
        self.faults.append(time())

    def violated(self, invariant: str, found: str) -> None:
        """Note what is wrong; for what only the case itself can see."""
        self.violations.append(Violation(invariant, found))

    async def kill(self, service: Service) -> None:
        """Kill a service."""
        await self.world.kill(service)
        self.fault()

    async def died(self, service: Service) -> None:
        """Wait until a service has killed itself.

        Raises:
            ScenarioFailed: it does not.

        """
        if not await self.world.died(service):
            raise ScenarioFailed(f"{service.name} did not pass its failpoint")
        self.fault()

    async def ask(self, body: dict[str, Any], key: str, *, at: Service | None = None, **headers: str) -> Call:
        """Send the main job once, through the network or directly `at` a process; note what came back."""
        self.bodies[key] = body
        url = (at.url if at else self.world.network.url(CLIENT, "orchestrator")) + JOB
        headers = {"Idempotency-Key": key, "X-Correlation-Id": key, **headers}
        try:
            async with self.world.http.post(url, json=body, headers=headers) as response:
                got = await response.read()
                call = Call(key, response.status, got, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError) as error:
            call = Call(key, None, error=type(error).__name__)
        self.calls.append(call)
        return call

    async def insist(self, body: dict[str, Any], key: str, *, at: Service | None = None) -> Call:
        """Repeat the main job with one key until there is a final answer, or for a minute."""
        deadline = monotonic() + PATIENCE_SECONDS
        while True:
            call = await self.ask(body, key, at=at)
            if call.is_final:
                return call
            if monotonic() > deadline:
                self.violated("the_client_is_answered", f"{key}: {call.status} {call.error} {call.body!r}")
                return call
            await asyncio.sleep(self.random.uniform(0.1, 0.3))

    async def clients(
        self, many: int, body: dict[str, Any], *, at: Service | None = None
    ) -> "asyncio.Task[list[Call]]":
        """Start clients with a job each.

        A third of them go away when they get no answer, a third repeat their request until they have
        one, a third do both at once with the same key.
        """

        async def client(number: int) -> list[Call]:
            key = self.key()
            kinds = ((self.ask,), (self.insist,), (self.ask, self.insist))[number % 3]
            return list(await asyncio.gather(*(send(body, key, at=at) for send in kinds)))

        async def all_of_them() -> list[Call]:
            calls = await asyncio.gather(*(client(number) for number in range(many)))
            return [call for both in calls for call in both]

        return asyncio.create_task(all_of_them())
