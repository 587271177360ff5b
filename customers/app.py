"""The customers service, as an index."""

from aiohttp import web

from chassis.app import build_app
from customers.handlers import routes
from customers.settings import Settings

DESCRIPTION = "Customers and whether they may order."


def create_app(settings: Settings) -> web.Application:
    """Put the service together."""
    return build_app(settings, description=DESCRIPTION, routes=[routes])
