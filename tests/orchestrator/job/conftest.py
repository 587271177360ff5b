"""The services that the jobs talk to, on SQLite: a job does not know what they run on."""

import socket
from pathlib import Path
from typing import Any

import pytest

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from tests.client import HOST, Serve
from tests.databases import SQLite, on_database
from tests.orchestrator.job.system import STOCK, Gate, System

# A slow machine makes these tests slow, not red.
PATIENT = {"peer_timeout": 60, "peer_deadline": 60}
PATIENT_SAGAS = {"saga_lease": 300, "answer_timeout": 60, "join_timeout": 60}


@pytest.fixture
async def system(sqlite: SQLite, tmp_path: Path, serve: Serve) -> System:
    def settings(of: Any, **given: Any) -> Any:
        return of(**on_database(sqlite.fresh(of, tmp_path)), **given)

    gate = Gate()
    first = await serve(customers.app.create_app(settings(customers.settings.Settings)))
    second = await serve(
        orders.app.create_app(settings(orders.settings.Settings, customers_api_base=first.url, **PATIENT))
    )
    peers = {"customers_api_base": first.url, "orders_api_base": second.url}
    app = orchestrator.app.create_app(
        settings(orchestrator.settings.Settings, **peers, **PATIENT, **PATIENT_SAGAS)
    )
    app.middlewares.insert(0, gate.middleware())
    third = await serve(app)
    await first.post("/admin/customers/create-customer", {"name": "ACME", "email": "ops@acme.com"})
    for number in range(1, 6):
        product = {"sku": f"DESK-{number}", "name": "Oak desk", "price_cents": 1000 * number, "stock": STOCK}
        await second.post("/admin/products/create-product", product)
    return System(first, second, third.url, gate)


@pytest.fixture
def nobody() -> Any:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield f"http://{HOST}:{taken.getsockname()[1]}"
