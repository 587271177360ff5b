"""The orders service, as an index."""

from aiohttp import web

from chassis import background
from chassis.app import build_app
from chassis.client import http_client
from chassis.database import DATABASE
from chassis.telemetry import traces
from orders import commands, handlers, product_handlers, queries
from orders.customers_client import customers_client
from orders.models import IdempotencyKey
from orders.settings import SETTINGS, Settings

DESCRIPTION = "Products, their stock, and orders that reserve and sell it."


def create_app(settings: Settings) -> web.Application:
    """Put the service together."""
    app = build_app(
        settings,
        description=DESCRIPTION,
        routes=[product_handlers.routes, handlers.routes],
        contexts=[
            http_client,
            customers_client,
            background.every(settings.expire_every, "expire orders", _expire),
        ],
        keys=IdempotencyKey,
    )
    app[SETTINGS] = settings
    return app


async def _expire(app: web.Application) -> None:
    async with app[DATABASE].read() as session:
        if not await queries.is_any_expired(session):
            return
    with traces.recorded("expire orders") as span:
        span.set_attribute("orders.expired", await commands.expire_all(app[DATABASE]))
