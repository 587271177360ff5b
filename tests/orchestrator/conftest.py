"""The whole system on sockets in this process, on both databases."""

from collections.abc import AsyncIterator

import pytest

from tests.client import Serve
from tests.databases import MakeSettings
from tests.orchestrator.shop import Replica, Shop, open_shop


@pytest.fixture
async def shop(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[Shop]:
    """Customers and orders, with nothing in them."""
    async with open_shop(make_settings, serve) as opened:
        yield opened


@pytest.fixture
async def orchestrator(shop: Shop) -> Replica:
    """An orchestrator before them."""
    return await shop.replica()
