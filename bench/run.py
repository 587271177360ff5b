"""Runs the cells of the table: each over HTTP first, then with the driver alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import URL

from bench import machine
from bench.driver import Replay, connections
from bench.ground import Ground, ground
from bench.load import WARM_UP, Measured, Send, call, closed_loop
from bench.operations import OPERATIONS, Operation, Subject

ORDERS_A_SECOND = 2_000
"""Orders that are made ready for confirming; a cell ends early when it has used them up."""
ORDERS_READ = 100
"""Orders that are read in turn."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure each cell, and with how many clients."""

    seconds: float
    clients: tuple[int, ...]

    def cells(self) -> Iterator[tuple[Operation, int, int]]:
        """Operations, with numbers of products and clients."""
        for operation in OPERATIONS:
            for products in operation.products:
                for clients in self.clients:
                    yield operation, products, clients


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of a cell; a request sends so many `statements`."""

    operation: str
    products: int
    clients: int
    statements: int
    http: Measured
    driver: Measured

    @property
    def ratio(self) -> float:
        """The rate over HTTP as a part of the driver's."""
        return self.http.rate / self.driver.rate if self.driver.rate else 0.0

    @property
    def errors(self) -> int:
        """Requests without the answer they must get; the figures are worth nothing then."""
        return sum(self.http.errors.values()) + sum(self.driver.errors.values())


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was found. `statements` are those of one request of each operation."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    statements: dict[str, tuple[str, ...]]


async def run(server: URL, folder: Path, plan: Plan, show: Callable[[Row], None]) -> Results:
    """Measure in a new schema of this server, with logs in `folder`; show each row when it is there.

    Raises:
        ServiceFailed, UnexpectedReply, Failed, Unreplayable: there is nothing to measure.
        WrongResult: what was measured did not do what it answered.

    """
    about = machine.describe()
    rows: list[Row] = []
    async with ground(server, folder) as site:
        about |= await machine.describe_database(site.database)
        for operation, products, clients in plan.cells():
            rows.append(await _measure(site, operation, products, clients, plan.seconds))
            show(rows[-1])
    settings = {
        "seconds": plan.seconds,
        "log_level": site.settings.log_level,
        "db_pool_size": site.settings.db_pool_size,
    }
    statements = {name: recording.statements for name, recording in site.recordings.items()}
    return Results(about, settings, rows, statements)


async def _measure(where: Ground, operation: Operation, products: int, clients: int, seconds: float) -> Row:
    async def over_http(subject: Subject) -> None:
        await call(where.http, operation, where.site, subject, uuid4().hex)

    async def proven(send: Send) -> Measured:
        subjects = await _subjects(where, operation, products, seconds)
        before = await where.shop.stock()
        measured = await closed_loop(send, subjects, clients, seconds, where.processes)
        if not measured.errors:  # after an error nobody knows what was done
            await where.shop.prove(before, measured.answers, operation.moves)
        return measured

    recording = where.recordings[operation.name]
    http = await proven(over_http)
    async with connections(where.settings, min(clients, where.settings.db_pool_size)) as connected:
        driver = await proven(Replay(recording, connected))
    return Row(operation.name, products, clients, len(recording.statements), http, driver)


async def _subjects(where: Ground, operation: Operation, products: int, seconds: float) -> Iterator[Subject]:
    match operation.orders:
        case "none":
            return where.shop.without_orders(products)
        case "any":
            return cycle(await where.shop.with_orders(where.original, products, ORDERS_READ))
        case "new":
            ready = where.unconfirmed[products]
            missing = ceil(ORDERS_A_SECOND * seconds * (1 + WARM_UP)) - len(ready)
            ready += await where.shop.with_orders(where.original, products, missing)
            return (ready.pop() for _ in range(len(ready)))
