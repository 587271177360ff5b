"""One system for the tests of a file, on each database; each test has a customer and a product of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.databases import Databases, one_each
from tests.idempotency.system import OPERATIONS, Operation, System
from tests.serving import sockets


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
async def system(urls: dict[str, str]) -> AsyncIterator[System]:
    """The services, running."""
    async with sockets() as serve:
        opened = System(urls, serve)
        await opened.start()
        yield opened


@pytest_asyncio.fixture(loop_scope="module", params=OPERATIONS)
async def operation(request: pytest.FixtureRequest, system: System) -> Operation:
    """Each of the operations in turn."""
    opened = OPERATIONS[request.param](system)
    await opened.open()
    return opened
