"""The service token is rotated while orders come in, one service after the other; no order notices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from tests.client import Client, Serve
from tests.databases import MakeSettings
from tests.orchestrator.shop import Catalog, Orchestrator, until

CLIENTS = 3
ORDERS_BETWEEN = 4
"""Orders that come in between two changes of a file."""


class Traffic:
    """Clients that order as fast as they can; `statuses` are their answers."""

    def __init__(self, front: Orchestrator, body: dict[str, Any]) -> None:
        self.statuses: list[int] = []
        self._front = front
        self._body = body
        self._keys = count()

    @asynccontextmanager
    async def flows(self) -> AsyncIterator[None]:
        flowing = True

        async def client() -> None:
            while flowing:
                reply = await self._front.job(self._body, key=f"order-{next(self._keys)}")
                self.statuses.append(reply.status)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(client())
            yield
            flowing = False

    async def more(self) -> None:
        """Wait until some more orders were answered."""
        wanted = len(self.statuses) + ORDERS_BETWEEN

        async def answered() -> bool:
            return len(self.statuses) >= wanted

        await until(answered)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The file with the token of each service."""
    paths = {name: tmp_path / f"{name}-token" for name in ("customers", "orders", "orchestrator")}
    for path in paths.values():
        path.write_text("old")
    return paths


async def test_no_order_is_lost_while_the_token_is_rotated(
    make_settings: MakeSettings, serve: Serve, files: dict[str, Path]
) -> None:
    def tokens(service: str) -> dict[str, Any]:
        return {"service_token": "", "service_token_file": str(files[service])}

    first = await serve(
        customers.app.create_app(make_settings(customers.settings.Settings, **tokens("customers")))
    )
    told = tokens("orders") | {"customers_api_base": first.url}
    second = await serve(orders.app.create_app(make_settings(orders.settings.Settings, **told)))
    told = tokens("orchestrator") | {"customers_api_base": first.url, "orders_api_base": second.url}
    third = await serve(orchestrator.app.create_app(make_settings(orchestrator.settings.Settings, **told)))
    catalog = Catalog(first, second)
    traffic = Traffic(Orchestrator(third), await catalog.basket(qty=1, stock=100_000))

    async with traffic.flows():
        for content in ("old\nnew", "new\nold", "new"):
            for file in files.values():
                replacement = file.with_suffix(".next")
                replacement.write_text(content)
                replacement.replace(file)
                await traffic.more()

    assert set(traffic.statuses) == {201}
    sagas = (await third.get("/orchestrator/sagas", params={"limit": 100})).json["data"]
    assert {step["outcome"] for saga in sagas for step in saga["steps"]} == {"done"}
    assert [await _internal(first, token) for token in ("old", "new")] == [401, 404]


async def _internal(customers_client: Client, token: str) -> int:
    path, headers = (
        "/admin/customers/internal/customers/999999999",
        {"Authorization": f"Bearer {token}"},
    )
    return (await customers_client.get(path, headers=headers)).status
