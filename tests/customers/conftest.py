"""The customers service on both databases."""

import pytest
from aiohttp import web

from customers.app import create_app
from customers.settings import Settings
from tests.client import Client, Serve
from tests.databases import MakeSettings


@pytest.fixture
def app(make_settings: MakeSettings) -> web.Application:
    """The service."""
    return create_app(make_settings(Settings))


@pytest.fixture
async def client(app: web.Application, serve: Serve) -> Client:
    """Its caller."""
    return await serve(app)
