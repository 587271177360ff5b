"""What being observed costs: `python -m bench.observability`.

One read over HTTP (an order with its items and history, three SELECTs on MariaDB) by several processes of the
same service, which differ only in what they tell: nothing at all, metrics, log lines, traces at
two rates of sampling, and everything together. They take turns of a moment each, many times, so that what the
machine does besides hits all of them alike. The baseline is the process that tells nothing.
"""

import asyncio
import itertools
import json
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import aiohttp
import typer
import uvloop
from aiohttp import web
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import URL

from bench.__main__ import EXPECTED, server_for
from bench.ground import schema
from bench.load import Send, call, closed_loop
from bench.operations import FIND, Site, Subject
from dev import calls
from dev.ports import HOST, reserved
from dev.sample import load
from dev.stack import Service, stack

CLIENTS = 8
TURN_SECONDS = 1.0
DARK = str(Path(__file__).parent / "dark")
NO_METRICS = {"PYTHONPATH": DARK}
NO_LOGS = {"LOG_LEVEL": "error"}
NO_TRACES = {"OTEL_SDK_DISABLED": "true"}
SETTINGS = {"SYNCHRONIZE": "true", "AUTH": "off", "SERVICE_TOKEN": "of-the-benchmark"}
cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def traces(share: float, collector: str) -> dict[str, str]:
    """The variables for tracing so much of all requests."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(share),
    }


def kinds(collector: str) -> dict[str, dict[str, str]]:
    """What the processes tell, by its name; the first one is the baseline."""
    return {
        "nothing": NO_METRICS | NO_LOGS | NO_TRACES,
        "metrics": NO_LOGS | NO_TRACES,
        "log lines": NO_METRICS | NO_TRACES,
        "traces, 0.1": NO_METRICS | NO_LOGS | traces(0.1, collector),
        "traces, 1.0": NO_METRICS | NO_LOGS | traces(1.0, collector),
        "everything, traces 0.1": traces(0.1, collector),
        "everything, traces 1.0": traces(1.0, collector),
    }


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured beside the baseline, how often, and for how many seconds each time."""

    words: Sequence[str]
    turns: int
    seconds: float


@dataclass(slots=True)
class Observed:
    """What was measured of one process: a rate and milliseconds of its CPU for an answer, a turn each."""

    tells: str
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second, the median of its turns."""
        return statistics.median(self.rates)

    @property
    def cpu(self) -> float:
        """Milliseconds of the service's CPU for an answer, the median of its turns."""
        return statistics.median(self.cpu_ms)


@cli.command()
def main(
    words: Annotated[
        list[str] | None, typer.Argument(help="Beside the baseline, only what has one of these words.")
    ] = None,
    *,
    turns: Annotated[int, typer.Option(min=1, max=1000, help="How often each process has its turn.")] = 15,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long a turn is.")] = TURN_SECONDS,
    output: Annotated[Path, typer.Option(help="Where to write everything as JSON.")] = Path(
        "bench-observability.json"
    ),
) -> None:
    """Measure the same read with nothing told, and with metrics, log lines and traces."""
    console = Console()
    try:
        with (
            TemporaryDirectory(prefix="b2b-bench-") as folder,
            server_for(Path(folder, "mariadb")) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found = runner.run(measured(server, Path(folder), Plan(words or [""], turns, seconds), console))
    except EXPECTED as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(1) from None
    output.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    console.print(table(found))


def table(found: Sequence[Observed]) -> Table:
    """The medians, each beside those of the process that tells nothing."""
    shown = Table(title=f"One read by {CLIENTS} clients, by what the service tells")
    shown.add_column("tells")
    for heading in ("requests /s", "of nothing", "CPU ms", "more CPU ms"):
        shown.add_column(heading, justify="right")
    nothing = found[0]
    for one in found:
        rate = f"{one.rate / nothing.rate:.2f}"
        shown.add_row(one.tells, f"{one.rate:,.0f}", rate, f"{one.cpu:.2f}", f"{one.cpu - nothing.cpu:+.2f}")
    return shown


async def measured(server: URL, folder: Path, plan: Plan, console: Console) -> list[Observed]:
    """Let the baseline and what has one of the words take turns."""
    async with (
        collector() as endpoint,
        schema(server) as url,
        stack(
            folder,
            database_urls=dict.fromkeys(("customers", "orders", "orchestrator"), url),
            environment=SETTINGS,
        ) as services,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        AsyncExitStack() as processes,
    ):
        sample = await load(http, services)
        body = {
            "customer_id": sample.customer["id"],
            "items": [{"product_id": product["id"], "qty": 1} for product in sample.products],
        }
        created = await calls.post(
            http, f"{services.orders.url}/admin/orders/create-order", body, expect=(201,)
        )
        subject = Subject(sample.products[0]["id"], created.json["data"]["id"])
        running: list[tuple[Observed, Service]] = []
        for number, (tells, told) in enumerate(kinds(endpoint).items()):
            if number > 0 and not any(word in tells for word in plan.words):
                continue
            service = await processes.enter_async_context(_process(services.orders, number, told))
            running.append((Observed(tells), service))
        for turn in range(plan.turns):
            for observed, service in running:
                site = Site(service.url, "", sample.customer["id"])
                send = partial(call, http, FIND, site, key="")
                await _turn(observed, service, send, subject, plan.seconds)
            console.print(f"turn {turn + 1} of {plan.turns}", highlight=False)
        return [observed for observed, _ in running]


async def _turn(observed: Observed, service: Service, send: Send, subject: Subject, seconds: float) -> None:
    processes = {} if service.process is None else {service.name: service.process.pid}
    found = await closed_loop(send, itertools.repeat(subject), CLIENTS, seconds, processes)
    observed.rates.append(found.rate)
    observed.cpu_ms.append(found.cpu_ms[service.name])


@asynccontextmanager
async def _process(like: Service, number: int, told: dict[str, str]) -> AsyncIterator[Service]:
    """One more process of a service, with these variables."""
    with reserved() as port, reserved() as admin_port:
        ports = {"PORT": str(port), "ADMIN_PORT": str(admin_port)}
        log_file = like.log_file.with_name(f"orders-{number}.log")
        environment = {**like.environment, **ports, **told}
        service = replace(
            like, port=port, admin_port=admin_port, environment=environment, log_file=log_file, process=None
        )
        try:
            await service.start()
            yield service
        finally:
            await service.terminate()


@asynccontextmanager
async def collector() -> AsyncIterator[str]:
    """The address of a collector that takes everything and looks at nothing."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    cli()
