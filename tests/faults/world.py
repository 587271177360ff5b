"""The system that faults are done to: MariaDB and the three services, each a process of its own.

They reach one another through `network`, as clients reach the orchestrator, unless a case asks it directly.

The services share one schema. They are impatient, so that a saga whose owner died is taken over within
seconds; a case may give a service other variables for its run, `heal` takes them away again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

import orchestrator.settings
import orders.settings
from chassis.database import Database
from dev.calls import post
from dev.mariadb import Server
from dev.stack import Service, Stack, stack
from tests.faults.network import Network, network

LEASE_SECONDS = 2.5
TOKEN = "the-token-of-the-campaign"
SERVICES = ("customers", "orders", "orchestrator")
IMPATIENT = {
    "AUTH": "off",
    "SERVICE_TOKEN": TOKEN,
    "SYNCHRONIZE": "true",
    "LOG_LEVEL": "warning",
    "LOG_FORMAT": "json",
    "PEER_TIMEOUT": "1",
    "PEER_DEADLINE": "1",
    "SAGA_LEASE": str(LEASE_SECONDS),
    "SWEEP_EVERY": "0.2",
    "DB_LOCK_TIMEOUT": "1",
    "DB_TIMEOUT": "3",
    "ANSWER_TIMEOUT": "5",
    "JOIN_TIMEOUT": "3",
    "CANCEL_WINDOW": "0",  # whoever cancels what was confirmed is told so
    "SHUTDOWN_TIMEOUT": "5",
}


class World:
    """The processes and their database. `kills` counts the processes that were killed."""

    def __init__(
        self, server: Server, schema: str, services: Stack, network: Network, http: aiohttp.ClientSession
    ) -> None:
        self.server = server
        self.services = services
        self.network = network
        self.http = http
        self.kills = 0
        self.replicas: list[Service] = []
        self._usual = {service.name: service.environment for service in services}
        self.schema = schema
        self._numbers = iter(range(1, 10**9))

    async def restart(self, service: Service, **variables: str) -> None:
        """End a service in order and start it with these variables beside the usual ones, until `heal`."""
        await service.terminate()
        service.environment = {**self._usual[service.name], **variables}
        await service.start()

    async def kill(self, service: Service) -> None:
        """End a service at once, as a crash does."""
        await service.kill()
        self.kills += 1

    async def died(self, service: Service, *, within: float = 20) -> bool:
        """Wait for a service to kill itself; False if it does not."""
        deadline = monotonic() + within
        while service.is_running:
            if monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        self.kills += 1
        return True

    async def kill_database(self) -> None:
        """End MariaDB at once, as a crash does."""
        await asyncio.to_thread(self.server.kill)
        self.kills += 1

    async def replica(self, of: Service | None = None, **variables: str) -> Service:
        """Start a second orchestrator, or a replica of another service; `heal` ends it."""
        replica = (of or self.services.orchestrator).replica()
        replica.environment = {**replica.environment, **variables}
        self.replicas.append(replica)
        await replica.start()
        return replica

    async def heal(self) -> None:
        """Let everything run as usual: the database, the network, the three services without replicas."""
        if not self.server.is_running:
            await asyncio.to_thread(self.server.start)
        self.network.connect(self.services)
        for replica in self.replicas:
            replica.resume()
            await replica.terminate()
        self.replicas.clear()
        for service in self.services:
            service.resume()
            if service.is_running and service.environment == self._usual[service.name]:
                continue
            await service.terminate()
            service.environment = self._usual[service.name]
            service.launch()
        for service in self.services:
            await service.ready()

    async def basket(self, *, qty: int = 1, stock: int = 1_000_000) -> dict[str, Any]:
        """A body for the main job that nothing speaks against, with a customer and a product of its own."""
        number = next(self._numbers)
        customer = {"name": "ACME Corporation", "email": f"ops-{number}@acme.com"}
        product = {"sku": f"DESK-{number}", "name": "Oak desk", "price_cents": 129_900, "stock": stock}
        ids = [
            (await post(self.http, url, body, expect=(201,))).json["data"]["id"]
            for url, body in (
                (f"{self.services.customers.url}/admin/customers/create-customer", customer),
                (f"{self.services.orders.url}/admin/products/create-product", product),
            )
        ]
        return {"customer_id": ids[0], "items": [{"product_id": ids[1], "qty": qty}]}

    @asynccontextmanager
    async def databases(self) -> AsyncIterator[tuple[Database, Database]]:
        """The databases of the orchestrator and of orders, as an observer sees them."""
        given: dict[str, Any] = {
            "auth": "off",
            "database_url": self.server.url(self.schema),
            "service_token": TOKEN,
        }
        sagas = Database(orchestrator.settings.Settings(**given))
        stock = Database(orders.settings.Settings(**given))
        try:
            yield sagas, stock
        finally:
            await sagas.close()
            await stock.close()


@asynccontextmanager
async def open_world(
    server: Server, folder: Path, schema: str, fill: Callable[[], None] | None = None
) -> AsyncIterator[World]:
    """Run the services on a new schema, which `fill` may fill before, with their logs in `folder`."""
    server.create_database(schema)
    if fill is not None:
        fill()
    async with AsyncExitStack() as opened:
        http = await opened.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
            )
        )
        links = await opened.enter_async_context(network(server))
        urls = {service: links.database_url(service, schema) for service in SERVICES}
        peers = {service: links.peers(service) for service in SERVICES}
        services = await opened.enter_async_context(
            stack(folder, database_urls=urls, environment=IMPATIENT, own=peers)
        )
        links.connect(services)
        world = World(server, schema, services, links, http)
        try:
            yield world
        finally:
            for each in (*world.replicas, *services):
                each.resume()
            for replica in world.replicas:
                await replica.kill()
