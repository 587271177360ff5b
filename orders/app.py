"""The orders service, as an index."""

from aiohttp import web

from chassis import background
from chassis.app import build_app
from chassis.client import http_client
from chassis.database import DATABASE
from orders import commands, handlers, product_handlers
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
    await commands.expire_all(app[DATABASE])
