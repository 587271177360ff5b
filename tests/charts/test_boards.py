"""The boards, asked of a real Prometheus that scrapes three real services under a small load."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from dev.dashboards.boards import BOARDS
from dev.dashboards.grafana import Panel
from dev.otlp import Traces, receive_traces
from dev.sample import Sample, load
from dev.stack import Stack, stack
from tests.charts.prometheus import Prometheus, prometheus
from tests.charts.test_rules import FILES

# One worker runs them all: they share the services and the Prometheus.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("boards")]

JOB = "/orchestrator/create-and-confirm-order"
WAIT_SECONDS = 60
LOOKS = 12
VARIABLES = {"$namespace": ".*", "$job": ".*", "$__rate_interval": "15s"}
SHOWN_FIRST = ("sum(rate(b2b_orders_total{outcome='confirmed'}[15s])) > 0", "slo:error_ratio:rate6h >= 0")
"""What has data once there is some traffic."""
EXPRESSIONS = [
    pytest.param(query, id=f"{board.uid} {panel.title} {number}")
    for board in BOARDS
    for panel in board.panels
    for number, (query, _) in enumerate(panel.queries)
]


@dataclass(frozen=True)
class Observed:
    """The services, what Prometheus knows of them, and their traces.

    `silent` are the panels that had nothing to show while all went well.
    """

    services: Stack
    prometheus: Prometheus
    traces: Traces
    silent: list[Panel]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def observed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Observed]:
    """All sorts of traffic goes on until the tests of this module end."""
    folder = tmp_path_factory.mktemp("observed")
    async with receive_traces() as traces:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "PEER_TIMEOUT": "1",
            "PEER_DEADLINE": "1",
            "ANSWER_TIMEOUT": "2",
        }
        async with (
            stack(folder, environment=environment) as services,
            prometheus(folder, services, FILES) as server,
            aiohttp.ClientSession() as http,
        ):
            AioHttpClientInstrumentor.uninstrument_session(http)  # a caller is none of our services
            sample = await load(http, services)
            wrong = asyncio.Event()
            traffic = asyncio.create_task(all_sorts(http, services, sample, wrong))
            silent = await silent_panels(server)
            wrong.set()
            yield Observed(services, server, traces, silent)
            traffic.cancel()


async def silent_panels(server: Prometheus) -> list[Panel]:
    """The panels without data, once those that count confirmed orders and budgets have some."""
    async with asyncio.timeout(WAIT_SECONDS):
        for known in SHOWN_FIRST:
            while not await has_data(server, known):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.5)
    silent = [panel for board in BOARDS for panel in board.panels]
    for _ in range(LOOKS):  # a rate wants two samples
        for panel in silent[:]:
            if any([await has_data(server, with_values(query)) for query, _ in panel.queries]):
                silent.remove(panel)
        await asyncio.sleep(0.5)
    return silent


async def all_sorts(
    http: aiohttp.ClientSession, services: Stack, sample: Sample, wrong: asyncio.Event
) -> None:
    """Orders that are made and replayed for ever; once things go `wrong`, also refused and failing."""
    customer, product = sample.customer["id"], sample.products[0]["id"]
    number = 0

    async def post(url: str, body: Any, key: str) -> None:
        async with http.post(url, json=body, headers={"Idempotency-Key": key}) as response:
            await response.read()

    async def job(qty: int, key: str) -> None:
        body = {"customer_id": customer, "items": [{"product_id": product, "qty": qty}]}
        await post(services.orchestrator.url + JOB, body, key)

    while True:
        number += 1
        await asyncio.sleep(0.2)
        await job(1, f"key-{number}")
        await job(1, f"key-{number}")
        if not wrong.is_set():
            continue
        await job(2, f"key-{number}")
        await job(1_000_000, f"short-{number}")
        await post(f"{services.customers.url}/admin/customers/create-customer", sample_again(sample), "again")
        await http.get(f"{services.orders.url}/nothing")
        if number % 5 == 0:
            await services.orders.kill()
            await job(1, f"late-{number}")
            await services.orders.start()


def sample_again(sample: Any) -> dict[str, str]:
    """A customer whose e-mail address is taken."""
    return {"name": "Again", "email": sample.customer["email"]}


def with_values(expression: str) -> str:
    """The expression as Grafana sends it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


async def has_data(server: Prometheus, expression: str) -> bool:
    return any(series["value"][1] != "NaN" for series in await server.query(expression))


@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_every_expression_of_every_panel_has_data(observed: Observed, expression: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await has_data(observed.prometheus, with_values(expression)):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.5)


async def test_a_panel_that_is_empty_while_all_goes_well_says_so(observed: Observed) -> None:
    assert observed.silent
    assert [panel.title for panel in observed.silent if not panel.empty] == []


async def test_a_slow_point_leads_to_its_trace(observed: Observed) -> None:
    bucket = f'http_server_request_duration_seconds_bucket{{http_route="{JOB}"}}'
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := await observed.prometheus.exemplars(bucket, time.time() - 60, time.time())):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.5)
        trace_id = found[-1]["labels"]["trace_id"]
        # Each service exports its part of a trace when it comes to it.
        while f"POST {JOB}" not in {span.name for span in observed.traces.of(trace_id)}:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.5)


async def test_every_recorded_ratio_has_data(observed: Observed) -> None:
    names = {
        name for file in FILES for name in re.findall(r"record: (slo:error_ratio:\w+)", file.read_text())
    }

    async with asyncio.timeout(WAIT_SECONDS):
        for name in names:
            while len(await observed.prometheus.query(name)) < 5:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.5)
