"""The metrics of three real processes: what the document says, and no more series than it has to be."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chassis.telemetry import metrics as registry
from dev.stack import Service, Stack, stack
from orchestrator.models import UNFINISHED, Status

OF_PYTHON = ("python_", "process_")


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path) as running:
        yield running


async def text_of(http: aiohttp.ClientSession, service: Service) -> str:
    """What the service shows, in OpenMetrics."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with http.get(f"{service.admin_url}/metrics", headers=accept) as response:
        return await response.text()


async def scraped(http: aiohttp.ClientSession, service: Service) -> dict[str, int]:
    """The number of samples in each family that the service shows."""
    families = text_string_to_metric_families(await text_of(http, service))  # type: ignore[no-untyped-call]  # as the package ships it
    return {family.name: len(family.samples) for family in families if not family.name.startswith(OF_PYTHON)}


async def test_a_scrape_has_the_metrics_of_the_registry_and_no_others(services: Stack) -> None:
    declared = {
        family.name
        for metric in vars(registry).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    }

    async with aiohttp.ClientSession() as http:
        for service in services:
            assert set(await scraped(http, service)) == declared


async def test_what_can_happen_to_orders_and_sagas_is_counted_from_zero(services: Stack) -> None:
    async with aiohttp.ClientSession() as http:
        counted = {
            line.rpartition(" ")[0]
            for service in services
            for line in (await text_of(http, service)).splitlines()
        }

    assert {
        f'b2b_sagas_ended_total{{state="{status}"}}' for status in Status if status not in UNFINISHED
    } <= counted
    for outcome in ("created", "confirmed", "canceled", "expired"):
        assert f'b2b_orders_total{{outcome="{outcome}",reason=""}}' in counted


async def test_10_000_paths_keys_and_ids_make_no_series_of_their_own(services: Stack) -> None:
    async def ask(http: aiohttp.ClientSession, number: int) -> None:
        calls = [
            ("GET", f"/nothing/{number}", {"User-Agent": f"agent {number}"}),
            ("POST", f"/admin/orders/x{number}/confirm", {"Idempotency-Key": f"key-{number}"}),
            (f"X{number}", "/", {"X-Correlation-Id": f"id-{number}"}),
            ("GET", f"/admin/orders/find-all?limit={number}", {"Baggage": f"name{number}=value"}),
        ]
        if number % 50 == 0:  # the others do not get as far as the database
            calls = [("GET", f"/admin/orders/find-one/{number + 1}", {})]
        method, path, headers = calls[number % len(calls)]
        async with http.request(method, services.orders.url + path, headers=headers) as response:
            await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as http:
        await asyncio.gather(*(ask(http, number) for number in range(200)))
        before = await scraped(http, services.orders)
        await asyncio.gather(*(ask(http, number) for number in range(200, 10_200)))
        after = await scraped(http, services.orders)

    # Work in the background may have its first statements meanwhile: a few series, not thousands.
    assert sum(after.values()) - sum(before.values()) < 100
