"""What one pod can do: `python -m bench.capacity`.

A pod is one process and a process uses one core at most, so what it can do follows from the CPU that it
takes for an order. That hardly depends on what else the machine does; rates and times do, as load
generator, services and database share its cores here.

A unit of work is an order: two validations of its customer; its creation and confirmation; the main job.
Few and many clients take turns of a moment each, several times, so that what the machine does besides hits
all of them alike. docs/scaling.md has the conclusions; docs/capacity.json the figures that it and the
simulation of a surge go by.
"""

import asyncio
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from uuid import uuid4

import typer
import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import URL

from bench import machine
from bench.__main__ import EXPECTED, server_for
from bench.ground import Ground, ground
from bench.load import Failed, Measured, Send, call, closed_loop
from bench.operations import CONFIRM, CREATE, CREATE_AND_CONFIRM, MANY, Stock, Subject
from dev.stack import Service

CLIENTS = (1, 2, 4, 8, 16)
SEVERAL = 4
"""With so many clients or more, a process does no more for an order because it has just slept."""
VALIDATIONS = 2
"""How often an order asks for its customer: by the orchestrator, and by orders."""

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, how often, and for how many seconds each time."""

    services: Sequence[str]
    turns: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Cell:
    """The medians of some turns: orders a second, their milliseconds, and those of the service's CPU.

    `cores` is the rate times the CPU: what the process had of a core meanwhile.
    """

    service: str
    clients: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    cores: float


@cli.command()
def main(
    services: Annotated[list[str] | None, typer.Argument(help="Only these services.")] = None,
    *,
    turns: Annotated[int, typer.Option(min=1, max=1000, help="How often each number of clients.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long a turn is.")] = 1,
    output: Annotated[Path, typer.Option(help="Where to write everything as JSON.")] = Path(
        "bench-capacity.json"
    ),
) -> None:
    """Measure what each service takes for an order, with few and many requests at once."""
    console = Console()
    plan = Plan(services or list(UNITS), turns, seconds)
    try:
        with (
            TemporaryDirectory(prefix="b2b-bench-") as folder,
            server_for(Path(folder, "mariadb")) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found = runner.run(measured(server, Path(folder), plan, console))
    except EXPECTED as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(1) from None
    output.write_text(json.dumps(found, indent=2) + "\n")
    console.print(table(found["cells"]))


def table(cells: list[dict[str, Any]]) -> Table:
    """A row for each service and number of clients."""
    shown = Table(title="Orders by one process of each service")
    shown.add_column("service")
    for heading in ("clients", "orders /s", "p50 ms", "p99 ms", "CPU ms", "cores"):
        shown.add_column(heading, justify="right")
    for cell in cells:
        shown.add_row(
            cell["service"], str(cell["clients"]), f"{cell['rate']:,.0f}", f"{cell['p50_ms']:.1f}",
            f"{cell['p99_ms']:.1f}", f"{cell['cpu_ms']:.2f}", f"{cell['cores']:.2f}",
        )  # fmt: skip
    return shown


async def measured(server: URL, folder: Path, plan: Plan, console: Console) -> dict[str, Any]:
    """Let all cells take turns.

    Raises:
        Failed: a request did not get its answer; the figures are worth nothing then.
        WrongResult: what was measured did not do what it answered.

    """
    about = machine.describe()
    async with ground(server, folder) as where:
        about |= await machine.describe_database(where.database)
        chosen = [one for one in where.services if one.name in plan.services]
        starts = {one.name: machine.cpu_seconds({"": where.processes[one.name]})[""] for one in chosen}
        taken: dict[tuple[str, int], list[Measured]] = {
            (one.name, clients): [] for one in chosen for clients in CLIENTS
        }
        before, orders = await where.shop.stock(), 0
        for turn in range(plan.turns):
            for one in chosen:
                for clients in CLIENTS:
                    found = await _turn(where, one, clients, plan.seconds)
                    taken[one.name, clients].append(found)
                    orders += found.answers if one.name != "customers" else 0
            console.print(f"turn {turn + 1} of {plan.turns}", highlight=False)
        await where.shop.prove(before, orders, Stock(-1, 0))
        cells = [_cell(service, clients, turns) for (service, clients), turns in taken.items()]
        services = {
            one.name: {
                "cpu_ms": statistics.median(
                    cell.cpu_ms for cell in cells if cell.service == one.name and cell.clients >= SEVERAL
                ),
                "start_cpu_s": starts[one.name],
                "memory_mib": machine.memory_mib(where.processes[one.name]),
            }
            for one in chosen
        }
    return {
        "machine": about,
        "turns": plan.turns,
        "seconds": plan.seconds,
        "services": services,
        "cells": [asdict(cell) for cell in cells],
    }


async def _turn(where: Ground, service: Service, clients: int, seconds: float) -> Measured:
    send, subjects = UNITS[service.name](where), where.shop.without_orders(MANY)
    found = await closed_loop(send, subjects, clients, seconds, {service.name: where.processes[service.name]})
    if found.errors:
        raise Failed(f"{service.name} with {clients} clients: {found.errors}")
    return found


def _cell(service: str, clients: int, turns: list[Measured]) -> Cell:
    rate, p50_ms, p99_ms, cpu_ms = (
        round(statistics.median(values), 2)
        for values in zip(
            *((turn.rate, turn.p50_ms, turn.p99_ms, turn.cpu_ms[service]) for turn in turns), strict=True
        )
    )
    return Cell(service, clients, rate, p50_ms, p99_ms, cpu_ms, round(rate * cpu_ms / 1000, 2))


def _validations(where: Ground) -> Send:
    """What an order needs of customers."""
    customers = where.services.customers.url
    url = f"{customers}/admin/customers/internal/customers/{where.site.customer_id}"
    headers = {"Authorization": f"Bearer {where.settings.service_token.get_secret_value()}"}

    async def send(_subject: Subject) -> None:
        for _ in range(VALIDATIONS):
            async with where.http.get(url, headers=headers) as response:
                await response.read()
            if not response.ok:
                raise Failed(str(response.status))

    return send


def _create_then_confirm(where: Ground) -> Send:
    """What an order needs of orders."""

    async def send(subject: Subject) -> None:
        created = json.loads(await call(where.http, CREATE, where.site, subject, uuid4().hex))
        await call(where.http, CONFIRM, where.site, Subject(0, created["data"]["id"]), uuid4().hex)

    return send


def _main_job(where: Ground) -> Send:
    """What an order needs of the orchestrator."""

    async def send(subject: Subject) -> None:
        await call(where.http, CREATE_AND_CONFIRM, where.site, subject, uuid4().hex)

    return send


UNITS = {"customers": _validations, "orders": _create_then_confirm, "orchestrator": _main_job}
"""What one order needs of each service."""


if __name__ == "__main__":
    cli()
