from collections.abc import AsyncIterator

from aiohttp import web

import customers.app
import customers.settings
from chassis import __version__
from chassis.app import build_app
from chassis.background import Context
from chassis.database import DATABASE
from chassis.lifecycle import LIFECYCLE
from tests.chassis.sample import Settings
from tests.client import Client, Serve, refused
from tests.databases import MakeSettings, on_database
from tests.observed import Sample


async def test_a_service_says_what_it_is_and_where_to_go_on(client: Client) -> None:
    reply = await client.get("/")

    assert reply.json == {
        "name": "sample",
        "version": __version__,
        "description": "It counts.",
        "links": {"health": "/health", "openapi": "/openapi.json", "docs": "/docs"},
    }
    for link in reply.json["links"].values():
        assert (await client.get(link)).status == 200
    assert Sample("b2b_build_info", service="sample", version=__version__).value == 1


async def test_a_service_is_healthy_when_it_reaches_its_database(
    make_settings: MakeSettings, serve: Serve
) -> None:
    client = await serve(customers.app.create_app(make_settings(customers.settings.Settings)))

    reply = await client.get("/health")

    assert (reply.status, reply.json) == (200, {"status": "ok", "database": "ok"})


async def test_a_service_without_its_database_starts_and_says_so(serve: Serve) -> None:
    settings = customers.settings.Settings(**on_database("mysql://root@127.0.0.1:1/nothing"))
    client = await serve(customers.app.create_app(settings))

    health = await client.get("/health")
    found = await client.get("/admin/customers/find-all")

    problem = refused(health, 503, "db.unavailable")
    assert problem["retryable"] is True
    refused(found, 503, "db.unavailable")


async def test_a_service_that_has_no_connection_left_says_so(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(customers.settings.Settings, db_pool_size=1, db_pool_timeout=0.05)
    app = customers.app.create_app(settings)
    client = await serve(app)

    async with app[DATABASE].read() as session:
        await session.connection()
        reply = await client.get("/admin/customers/find-all")

    refused(reply, 503, "db.pool_exhausted")
    assert (await client.get("/admin/customers/find-all")).status == 200


async def test_contexts_start_in_their_order_and_stop_in_reverse(settings: Settings) -> None:
    order: list[str] = []

    def context(name: str) -> Context:
        async def run(app: web.Application) -> AsyncIterator[None]:
            assert not app[LIFECYCLE].started
            order.append(f"start {name}")
            yield
            await app[DATABASE].check()
            order.append(f"stop {name}")

        return run

    app = build_app(settings, description="", routes=[], contexts=[context("a"), context("b")])
    runner = web.AppRunner(app)
    await runner.setup()
    assert app[LIFECYCLE].started
    await runner.cleanup()

    assert order == ["start a", "start b", "stop b", "stop a"]
