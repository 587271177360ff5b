"""The three services as processes, with a wire before orders and a receiver of traces, on both databases.

The processes are shared by the tests of a module; every test has a customer and a product of its own.
A module that imports the fixtures gets processes of its own.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

import orders.settings
from dev.otlp import Traces, receive_traces
from dev.stack import Stack, stack
from tests.client import Client
from tests.databases import TOKEN, Databases, on_database, one_each
from tests.orchestrator.shop import Catalog, Orchestrator
from tests.orchestrator.wire import Wire, open_wire

IMPATIENT = {
    "SERVICE_TOKEN": TOKEN,
    "SYNCHRONIZE": "false",
    "PEER_TIMEOUT": "1",
    "PEER_DEADLINE": "1",
    "SAGA_LEASE": "2.5",
    "SWEEP_EVERY": "0.2",
    "EXPIRE_EVERY": "0.2",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
}


@dataclass(frozen=True)
class System:
    """The processes, their data, the wire between the orchestrator and orders, and what they trace."""

    processes: Stack
    catalog: Catalog
    orchestrator: Orchestrator
    to_orders: Wire
    traces: Traces
    orders_settings: orders.settings.Settings


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def backend(request: pytest.FixtureRequest) -> str:
    """The database of this run."""
    return str(request.param)


@pytest.fixture(scope="module")
def urls(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """A database for each service."""
    databases: Databases = request.getfixturevalue(backend)
    return one_each(databases, tmp_path_factory.mktemp("databases"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The three services, running."""
    async with open_wire() as to_orders, receive_traces() as traces, aiohttp.ClientSession() as session:
        AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
        told = {**IMPATIENT, "ORDERS_API_BASE": to_orders.url, "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
        folder = tmp_path_factory.mktemp("processes")
        async with stack(folder, database_urls=urls, environment=told) as processes:
            to_orders.target = processes.orders.url
            clients = [Client(session, service.port) for service in processes]
            yield System(
                processes,
                Catalog(clients[0], clients[1]),
                Orchestrator(clients[2]),
                to_orders,
                traces,
                orders.settings.Settings(**on_database(urls["orders"])),
            )
