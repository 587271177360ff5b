"""Jobs as real processes, and the three real services on sockets that they talk to."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from aiohttp import web

from orchestrator.answers import JOB_PATH
from orchestrator.job.client import connected
from orchestrator.job.files import OrderFile
from orchestrator.job.progress import Lines
from orchestrator.job.runner import Job
from tests.client import Client
from tests.databases import ROOT
from tests.processes import environment

STOCK = 1000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Before the orchestrator: lets `passes` requests through and holds the others until it is opened."""

    def __init__(self) -> None:
        self.passes = sys.maxsize
        self.holds_answers = False
        self.faults: list[Handler] = []
        self._held = 0
        self._changed = asyncio.Condition()

    def middleware(self) -> Any:
        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path != JOB_PATH:
                return await handler(request)
            if self.faults:
                return await self.faults.pop(0)(request)
            self.passes -= 1
            if self.passes >= 0:
                return await handler(request)
            answer = await handler(request) if self.holds_answers else None
            async with self._changed:
                self._held += 1
                self._changed.notify_all()
                await self._changed.wait_for(lambda: self.passes > 0)
            return answer or await handler(request)

        return gate

    async def holds(self, requests: int) -> None:
        """Wait until so many requests are held."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held >= requests)

    async def open(self) -> None:
        async with self._changed:
            self.passes = sys.maxsize
            self._changed.notify_all()


@dataclass
class Done:
    """A job that has ended."""

    exit_code: int
    out: str
    err: str

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """In the order of the file."""
        return sorted(map(json.loads, self.out.splitlines()), key=lambda result: int(result["line"]))

    def of(self, *names: str) -> list[Any]:
        """These fields of the results, in the order of the file."""
        return [tuple(result[name] for name in names) for result in self.results]

    @property
    def statuses(self) -> list[str]:
        return [result["status"] for result in self.results]


class Said(Lines):
    """What an operator is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class System:
    """The services, with a customer and a product in them."""

    def __init__(self, customers: Client, orders: Client, url: str, gate: Gate) -> None:
        self.customers = customers
        self.orders = orders
        self.url = url
        self.gate = gate

    async def start(self, *arguments: object, **options: Any) -> asyncio.subprocess.Process:
        """Start a job. It is told of a database that is not there: it needs none."""
        given = {"ORCHESTRATOR_API_BASE": self.url, "DB_HOST": "nowhere.invalid"}
        given |= options.pop("variables", {})
        streams = {"stdin": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.PIPE, **options}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "job", *map(str, arguments),
            cwd=ROOT, env=environment(**given), stdout=asyncio.subprocess.PIPE, **streams,
        )  # fmt: skip

    async def job(self, *arguments: object, given: bytes | None = None, **options: Any) -> Done:
        """Run a job to its end."""
        if given is not None:
            options["stdin"] = asyncio.subprocess.PIPE
        process = await self.start(*arguments, **options)
        return await ended(process, given)

    async def run(self, file: Path, **options: Any) -> Done:
        """The same without a process of its own, to save time."""
        results: list[str] = []
        display = Said()
        options = {"url": self.url, "patience": 120, **options}
        with file.open("rb") as opened:
            async with connected(**options) as orchestrator:
                job = Job(OrderFile(opened), orchestrator, 8, results.append, display)
                exit_code = await job.run()
        return Done(exit_code, "\n".join(results), "\n".join(display.lines))

    async def all_orders(self) -> list[Any]:
        reply = await self.orders.get("/admin/orders/find-all?limit=100")
        assert not reply.json["meta"]["has_next"]
        orders: list[Any] = reply.json["data"]
        return orders

    async def sold(self) -> int:
        """Units of the first product that are gone."""
        product = (await self.orders.get("/admin/products/find-one/1")).json["data"]
        assert product["reserved"] == 0
        return STOCK - int(product["stock"])


async def ended(process: asyncio.subprocess.Process, given: bytes | None = None) -> Done:
    out, err = await process.communicate(given)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), (err or b"").decode())


async def until_said(process: asyncio.subprocess.Process, text: str) -> str:
    """Read standard error up to a line with this text."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        line = await process.stderr.readline()
        assert line, said
        said += line.decode()
    return said
