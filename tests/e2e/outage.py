"""A database that is killed while an order is confirmed, comes back, and all that was said of it meanwhile.

MariaDB is that of orders alone; a lock on the product, held by somebody else, keeps the confirmation
between its statements until the server is gone.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from sqlalchemy import NullPool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.settings import parse_database_url
from dev.mariadb import Server, private_server
from dev.otlp import Traces, receive_traces
from dev.stack import Service, stack
from orchestrator.story.spans import Span
from tests.charts.prometheus import Prometheus, prometheus
from tests.charts.test_rules import FILES
from tests.client import Client, Reply
from tests.databases import TOKEN
from tests.orchestrator.shop import Catalog, Orchestrator, until
from tests.orchestrator.wire import Held, open_wire

CORRELATION_ID = "req-outage"
TRACE_ID = "4af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
KUBELET_SECONDS = 0.3
WANTED = {("ServiceNotReady", None), ("ErrorBudgetBurnsFast", "main-job-availability")}
"""Alerts and what they are about, that have to be on before the database comes back."""
ENVIRONMENT = {
    "SERVICE_TOKEN": TOKEN,
    "PEER_TIMEOUT": "20",
    "PEER_DEADLINE": "1",
    "SWEEP_EVERY": "0.3",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
}


@dataclass(frozen=True)
class Told:
    """What each witness said: the answers, the saga, spans, log lines, samples, alerts, and the command.

    `samples` are the counters at the end, by name; `alerts` those that were on while the database was
    down and `alerts_after` those that still were when all was over.
    """

    reply: Reply
    saga: Any
    spans: list[Span]
    lines: list[dict[str, Any]]
    samples: dict[str, list[Any]]
    alerts: list[dict[str, str]]
    alerts_after: list[dict[str, str]]
    waiting: float
    exemplars: set[str]
    story: str


@asynccontextmanager
async def kept_waiting(url: str, product_id: int) -> AsyncIterator[None]:
    """Hold the row of a product, as a transaction of somebody else does."""
    engine = create_async_engine(parse_database_url(url), poolclass=NullPool)
    connection = await engine.connect()
    try:
        await connection.execute(text("SELECT 1 FROM products WHERE id = :id FOR UPDATE"), {"id": product_id})
        yield
    finally:
        with suppress(DBAPIError):  # the server may be gone
            await connection.close()


@asynccontextmanager
async def probed(service: Service) -> AsyncIterator[None]:
    """Ask a service whether it is ready, again and again, as Kubernetes does."""

    async def probe() -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                async with http.get(f"{service.admin_url}/readyz") as response:
                    await response.read()
                await asyncio.sleep(KUBELET_SECONDS)

    task = asyncio.create_task(probe())
    try:
        yield
    finally:
        task.cancel()


async def waits_for_a_row(server: Server) -> None:
    """Return once a statement waits for a lock.

    InnoDB looks again only when nobody has asked for a tenth of a second.
    """
    waiting = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"

    async def waits() -> bool:
        await asyncio.sleep(0.2)
        return (await asyncio.to_thread(server.execute, waiting)).strip() == "1"

    await until(waits)


async def alerts_of(server: Prometheus) -> list[dict[str, str]]:
    """The alerts that are pending or firing, by Prometheus's own evaluation of our rules."""
    return [series["metric"] for series in await server.query("ALERTS")]


async def told_of_an_outage(folder: Path) -> Told:
    """Let it happen, and ask everybody."""
    with private_server(folder / "mariadb") as server:
        server.create_database("orders")
        async with (
            open_wire() as to_orders,
            receive_traces() as traces,
            aiohttp.ClientSession() as session,
        ):
            AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
            told = {
                **ENVIRONMENT,
                "ORDERS_API_BASE": to_orders.url,
                "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            }
            async with (
                stack(
                    folder / "stack",
                    database_urls={"orders": server.url("orders")},
                    environment=told,
                    # The statement waits until the server is killed, however long that takes.
                    own={"orders": {"SYNCHRONIZE": "true", "DB_LOCK_TIMEOUT": "60", "DB_TIMEOUT": "90"}},
                ) as services,
                probed(services.orders),
                prometheus(folder, services, FILES) as metrics,
            ):
                to_orders.target = services.orders.url
                customers, orders, orchestrator = (Client(session, service.port) for service in services)
                catalog, shop = Catalog(customers, orders), Orchestrator(orchestrator)
                await shop.job(await catalog.basket(), "before")
                body, other = await catalog.basket(), await catalog.basket(stock=1000)
                held = Held()
                to_orders.breaks("/confirm", held)

                first = asyncio.create_task(
                    shop.job(
                        body,
                        "outage",
                        traceparent=f"00-{TRACE_ID}-{CALLER}-01",
                        X_Correlation_Id=CORRELATION_ID,
                    )
                )
                await held.arrived()
                async with kept_waiting(server.url("orders"), body["items"][0]["product_id"]):
                    held.let_go()
                    await waits_for_a_row(server)
                    await asyncio.to_thread(server.kill)
                reply = await first

                numbers = count()

                async def noticed() -> list[dict[str, str]] | None:
                    # A rate sees what grows: the first failure of a kind has nothing to be compared with.
                    await shop.job(other, f"other-{next(numbers)}")
                    found = await alerts_of(metrics)
                    on = {(alert["alertname"], alert.get("slo")) for alert in found}
                    return found if on >= WANTED else None

                alerts = await until(noticed)
                waiting = await metrics.query('max(b2b_sagas{state="RUNNING"})')
                await asyncio.to_thread(server.start)
                saga = await shop.ended(reply.json["saga_id"])

                async def all_ended() -> bool:
                    sagas = (await orchestrator.get("/orchestrator/sagas")).json["data"]
                    return {each["status"] for each in sagas} == {"SUCCEEDED"}

                await until(all_ended)
                await _complete(traces)
                traces.write(folder / "traces.json")
                story = await services.orchestrator.command(
                    "trace", CORRELATION_ID, "--traces", str(folder / "traces.json")
                )
                assert story.returncode == 0, story.stdout + story.stderr
                samples, alerts_after, exemplars = await _asked(metrics)
            logs = "".join(service.log_file.read_text() for service in services)
            return Told(
                reply=reply,
                saga=saga,
                spans=traces.spans,
                lines=[json.loads(line) for line in logs.splitlines()],
                samples=samples,
                alerts=alerts,
                alerts_after=alerts_after,
                waiting=float(waiting[0]["value"][1]),
                exemplars=exemplars,
                story=story.stdout,
            )


async def _complete(traces: Traces) -> None:
    """Wait for the span in which the sweeper brought the saga to its end, and its parts."""

    async def ended() -> bool:
        return bool(resumed(traces.spans))

    await until(ended)


def resumed(spans: list[Span]) -> list[Span]:
    """The spans in which the saga was taken up again and came to its end."""
    done = {span.trace_id for span in spans if span.attributes.get("saga.outcome") == "done"}
    committed = {span.parent_id for span in spans if span.name == "COMMIT"}
    return [
        span
        for span in spans
        if span.name == "saga resumed"
        and TRACE_ID in [trace_id for trace_id, _ in span.links]
        and span.trace_id in done
        and span.span_id in committed
    ]


async def _asked(server: Prometheus) -> tuple[dict[str, list[Any]], list[dict[str, str]], set[str]]:
    """What Prometheus knows, once it has scraped what is now, and orders is ready again."""
    now = time.time()

    async def scraped() -> bool:
        return float((await server.query("min(timestamp(up))"))[0]["value"][1]) > now

    async def ready() -> bool:
        return "ServiceNotReady" not in {alert["alertname"] for alert in await alerts_of(server)}

    await until(scraped)
    await until(ready)
    names = (
        "http_server_request_duration_seconds_count",
        "http_client_request_duration_seconds_count",
        "db_client_operation_duration_seconds_count",
        "b2b_saga_step_duration_seconds_count",
        "b2b_sagas_ended_total",
        "b2b_sagas",
    )
    samples = {name: await server.query(f"{name} != 0") for name in names}
    bucket = 'http_server_request_duration_seconds_bucket{http_route="/admin/orders/{order_id}/confirm"}'
    found = await server.exemplars(bucket, now - 3600, now)
    return samples, await alerts_of(server), {each["labels"]["trace_id"] for each in found}
