"""build_app: the only place that knows the order of the middlewares and what every service has."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from aiohttp import web

from chassis import __version__, background, idempotency, openapi, schema
from chassis.auth.access import access
from chassis.auth.service_tokens import SERVICE_TOKENS, ServiceTokens
from chassis.background import Context
from chassis.database import DATABASE, Database
from chassis.errors import DatabaseUnavailable, PoolExhausted, SchemaBroken, SchemaMigrating
from chassis.http import SETTINGS, Answer, View
from chassis.idempotency import KEYS, KeyRow, Keys
from chassis.lifecycle import LIFECYCLE, Lifecycle
from chassis.middlewares import cors, observe, problems
from chassis.probes import build_admin_app
from chassis.routes import Routes
from chassis.settings import Settings
from chassis.telemetry.loop import watch_loop
from chassis.telemetry.metrics import BUILD_INFO

ADMIN = web.AppKey("admin", web.Application)
PURGE_SECONDS = 3600


def build_app(
    settings: Settings,
    *,
    description: str,
    routes: Sequence[Routes],
    contexts: Sequence[Context] = (),
    keys: type[KeyRow] | None = None,
) -> web.Application:
    """Put a service together.

    `routes` are its operations, `contexts` what it starts and stops (in this order, stopped in
    reverse), `keys` its table of idempotency keys. `app[ADMIN]` is what belongs on the admin port.
    """
    app = web.Application(middlewares=[observe, cors, problems], client_max_size=settings.max_body_bytes)
    app[SETTINGS] = settings
    app[LIFECYCLE] = Lifecycle()
    app[SERVICE_TOKENS] = ServiceTokens(settings)
    app[DATABASE] = database = Database(settings)

    own = _own_routes(settings, description)
    operations = [operation for group in (own, *routes) for operation in group.operations]
    app.add_routes(operation.route() for operation in operations)
    describe = partial(
        openapi.document, settings.service, description, (own, *routes), secured=settings.auth == "jwt"
    )
    openapi.add_routes(app, settings.service, describe)

    app.on_shutdown.append(_end)
    app.cleanup_ctx.append(watch_loop)
    app.cleanup_ctx.append(access)
    app.cleanup_ctx.append(_schema_and_connections)
    if keys is not None:
        app[KEYS] = Keys(settings.service, database, keys)
        app.cleanup_ctx.append(background.every(PURGE_SECONDS, "purge idempotency keys", _purge))
    app.cleanup_ctx.extend(contexts)
    if keys is not None:
        app.cleanup_ctx.append(idempotency.stop_flights)
    app.cleanup_ctx.append(_started)

    app[ADMIN] = build_admin_app(app)
    return app


async def _schema_and_connections(app: web.Application) -> AsyncIterator[None]:
    settings, database = app[SETTINGS], app[DATABASE]
    migrating = None
    if settings.migrates_at_start:
        database.refusal = SchemaMigrating
        migrating = asyncio.create_task(schema.bring_up_to_date(settings, database), name="migrate")
    yield
    if migrating is not None:
        migrating.cancel()
        with suppress(asyncio.CancelledError):
            await migrating
    await database.close()


async def _started(app: web.Application) -> AsyncIterator[None]:
    BUILD_INFO.labels(app[SETTINGS].service, __version__).set(1)
    app[LIFECYCLE].started = True
    yield


async def _end(app: web.Application) -> None:
    app[LIFECYCLE].end_within(app[SETTINGS].shutdown_timeout)


async def _purge(app: web.Application) -> None:
    await app[KEYS].purge(app[SETTINGS].idempotency_days)


class ServiceView(View):
    """What a service says of itself."""

    name: str
    version: str
    description: str
    links: dict[str, str]


class HealthView(View):
    """The service answers and reaches its database."""

    status: str
    database: str


def _own_routes(settings: Settings, description: str) -> Routes:
    routes = Routes("service")

    @routes.get("/", public=True, answers={200: ServiceView})
    async def index(request: web.Request) -> Answer:  # noqa: ARG001 - a handler's signature
        """Name, version and where to go on."""
        links = {"health": "/health", "openapi": "/openapi.json", "docs": "/docs"}
        view = ServiceView(name=settings.service, version=__version__, description=description, links=links)
        return Answer.of(view)

    @routes.get(
        "/health",
        public=True,
        answers={200: HealthView},
        refuses=(DatabaseUnavailable, PoolExhausted, SchemaMigrating, SchemaBroken),
    )
    async def health(request: web.Request) -> Answer:
        """Whether the database can be reached."""
        await request.app[DATABASE].check()
        return Answer.of(HealthView(status="ok", database="ok"))

    return routes
