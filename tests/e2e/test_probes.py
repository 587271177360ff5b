"""The database of the three services dies, stands still and comes back: what their probes say."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis import probes
from chassis.settings import Settings, parse_database_url
from dev.mariadb import Server, private_server
from tests.client import Client, Serve
from tests.databases import MariaDB, on_database, one_each

SECONDS = 60  # generous: what is waited for comes within a few
READY = {"status": "ready"}
SERVICES: dict[type[Settings], Any] = {
    customers.settings.Settings: customers.app.create_app,
    orders.settings.Settings: orders.app.create_app,
    orchestrator.settings.Settings: orchestrator.app.create_app,
}


@pytest.fixture
def server() -> Iterator[Server]:
    """A MariaDB that no other test minds being killed."""
    with TemporaryDirectory(prefix="b2b-probes-") as folder, private_server(Path(folder)) as started:
        yield started
        started.resume()


def _app(settings_class: type[Settings], url: str) -> web.Application:
    app: web.Application = SERVICES[settings_class](settings_class(**on_database(url)))
    return app


async def test_readiness_follows_the_database_and_nothing_else_does(
    server: Server, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "CHECK_EVERY_SECONDS", -1)
    monkeypatch.setattr(probes, "CHECK_TIMEOUT_SECONDS", 0.5)
    urls = one_each(MariaDB(parse_database_url(server.url(""))), tmp_path)
    clients = [await serve(_app(each, urls[each.service])) for each in SERVICES]
    await _all_say(clients, READY)

    server.kill()
    await _all_say(clients, {"status": "not ready", "reason": "db.unavailable"})
    await asyncio.to_thread(server.start)
    await _all_say(clients, READY)

    server.pause()
    await _all_say(clients, {"status": "not ready", "reason": "db.slow"})
    server.resume()
    await _all_say(clients, READY)


async def _all_say(clients: list[Client], wanted: dict[str, str]) -> None:
    """Wait until all services answer so; meanwhile they are alive and started."""
    async with asyncio.timeout(SECONDS):
        for client in clients:
            while True:
                paths = ("/livez", "/startupz", "/readyz")
                alive, started, ready = [await client.admin.get(path) for path in paths]
                assert (alive.status, started.status) == (200, 200)
                assert ready.status == (200 if ready.json == READY else 503)
                if ready.json == wanted:
                    break
