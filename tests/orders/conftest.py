"""Shops on both databases. Their customers service is a process of its own, one for all tests."""

import json
from collections.abc import AsyncIterator, Iterator
from threading import Thread
from typing import Any

import aiohttp
import pytest

import customers.settings
from orders.app import create_app
from orders.settings import Settings
from tests.client import Client, Serve
from tests.databases import MakeSettings, SQLite
from tests.orders.shop import OpenShop, Shop, new_customer
from tests.processes import start, variables


@pytest.fixture(scope="session")
def customers_port(sqlite: SQLite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where the customers service listens; its data is in SQLite whatever the database of orders."""
    url = sqlite.fresh(customers.settings.Settings, tmp_path_factory.mktemp("customers"))
    with start("customers", "serve", **variables(url)) as process:
        assert process.stderr is not None
        lines = map(json.loads, process.stderr)
        port = next(line["port"] for line in lines if line["event"] == "serving")
        drain = Thread(target=process.stderr.read)  # a full pipe would stop the service
        drain.start()
        yield port
        process.terminate()
        drain.join()


@pytest.fixture
async def peer(customers_port: int) -> AsyncIterator[Client]:
    """The customers service."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, customers_port)


@pytest.fixture
async def customer_id(peer: Client) -> int:
    """Who orders unless a test says otherwise."""
    return await new_customer(peer)


@pytest.fixture
def open_shop(make_settings: MakeSettings, serve: Serve, peer: Client, customer_id: int) -> OpenShop:
    """See OpenShop."""

    async def start(*, replicas: int = 1, **given: Any) -> Shop:
        settings = make_settings(Settings, **{"customers_api_base": peer.url} | given)
        apps = [create_app(settings) for _ in range(replicas)]
        return Shop(apps, [await serve(app) for app in apps], customer_id)

    return start


@pytest.fixture
async def shop(open_shop: OpenShop) -> Shop:
    """A shop of one replica."""
    return await open_shop()
