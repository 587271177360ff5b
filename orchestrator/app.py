"""The orchestrator, as an index."""

from aiohttp import web

from chassis import background
from chassis.app import PURGE_SECONDS, build_app
from chassis.client import http_client
from chassis.database import DATABASE
from chassis.lifecycle import LIFECYCLE
from orchestrator import commands
from orchestrator.driver import DRIVER, driver, interrupt_in_time
from orchestrator.handlers import routes
from orchestrator.models import IdempotencyKey
from orchestrator.peers import peers
from orchestrator.settings import SETTINGS, Settings

DESCRIPTION = "Validates the customer, creates the order and confirms it, exactly once."


def create_app(settings: Settings) -> web.Application:
    """Put the service together."""
    app = build_app(
        settings,
        description=DESCRIPTION,
        routes=[routes],
        contexts=[
            http_client,
            peers,
            driver,
            background.every(settings.sweep_every, "sweep sagas", _sweep),
            background.every(PURGE_SECONDS, "purge sagas", _purge),
        ],
        keys=IdempotencyKey,
    )
    app[SETTINGS] = settings
    app.on_shutdown.append(interrupt_in_time)
    return app


async def _sweep(app: web.Application) -> None:
    if not app[LIFECYCLE].draining:  # what is taken over now would have to be given back
        await app[DRIVER].sweep()


async def _purge(app: web.Application) -> None:
    await commands.purge_sagas(app[DATABASE], app[SETTINGS].saga_days)
