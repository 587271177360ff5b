"""The main job between real processes that are killed, stopped and observed, on both databases.

The processes are shared by the tests of this module; every test has a customer and a product of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

import customers.settings
import orchestrator.settings
import orders.settings
from chassis.database import Database
from dev.otlp import Traces, receive_traces
from dev.stack import Stack, stack
from orchestrator.models import UNFINISHED
from orchestrator.story.spans import Span
from orders.reconcile import find_discrepancies
from tests.client import Client, Reply
from tests.databases import TOKEN, Databases, on_database
from tests.orchestrator.shop import Catalog, Orchestrator, not_ended, until
from tests.orchestrator.wire import Held, Wire, open_wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMPATIENT = {
    "SERVICE_TOKEN": TOKEN,
    "SYNCHRONIZE": "false",
    "PEER_TIMEOUT": "1",
    "PEER_DEADLINE": "1",
    "SAGA_LEASE": "2.5",
    "SWEEP_EVERY": "0.2",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
}
MANY = 50
"""More calls than are repeated while one is held."""


@dataclass(frozen=True)
class System:
    """The processes, their data, the wire between the orchestrator and orders, and what they trace."""

    processes: Stack
    catalog: Catalog
    orchestrator: Orchestrator
    to_orders: Wire
    traces: Traces
    orders_settings: orders.settings.Settings


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
    folder = tmp_path_factory.mktemp("databases")
    classes = (customers.settings.Settings, orders.settings.Settings, orchestrator.settings.Settings)
    return {settings.service: databases.fresh(settings, folder) for settings in classes}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The three services, running."""
    async with open_wire() as to_orders, receive_traces() as traces, aiohttp.ClientSession() as session:
        AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
        told = {**IMPATIENT, "ORDERS_API_BASE": to_orders.url, "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
        folder = tmp_path_factory.mktemp("processes")
        async with stack(folder, database_urls=urls, environment=told) as processes:
            to_orders.target = processes.orders.url
            clients = [Client(session, service.port) for service in processes]
            yield System(
                processes,
                Catalog(clients[0], clients[1]),
                Orchestrator(clients[2]),
                to_orders,
                traces,
                orders.settings.Settings(**on_database(urls["orders"])),
            )


async def nothing_is_off(system: System) -> None:
    """Assert that stock, reservations and totals equal the ledger."""
    database = Database(system.orders_settings)
    try:
        assert await find_discrepancies(database) == []
    finally:
        await database.close()


async def continued(orchestrator: Orchestrator, body: Any, key: str) -> Reply:
    """Ask with the same key until there is an answer, as a client does that must have one."""

    async def answered() -> Reply | None:
        try:
            reply = await orchestrator.job(body, key)
        except aiohttp.ClientError:
            return None
        if reply.status == 409:
            assert reply.json["code"] == "idempotency.in_progress"
        elif reply.status != 503:
            return reply
        assert int(reply.headers["Retry-After"]) > 0
        return None

    reply: Reply = await until(answered)
    return reply


# --- a process that dies ------------------------------------------------------------------------


async def test_sagas_of_an_orchestrator_that_was_killed_are_ended_by_the_next_one(system: System) -> None:
    body = await system.catalog.basket(qty=1)
    confirming, created = Held(), Held(done=True)
    system.to_orders.breaks("/confirm", *[confirming] * MANY)
    one = asyncio.create_task(system.orchestrator.job(body, "killed-1"))
    await confirming.arrived()
    system.to_orders.breaks("/create-order", *[created] * MANY)
    other = asyncio.create_task(system.orchestrator.job(body, "killed-2"))
    await created.arrived()
    sagas = (await system.orchestrator.client.get("/orchestrator/sagas?status=RUNNING")).json["data"]

    await system.processes.orchestrator.kill()
    lost = await asyncio.gather(one, other, return_exceptions=True)
    confirming.let_go()
    created.let_go()
    await system.processes.orchestrator.start()
    ended = [await system.orchestrator.ended(saga["id"]) for saga in sagas]

    assert [outcome for outcome in lost if isinstance(outcome, Reply)] == []
    assert [saga["step"] for saga in sagas] == ["create_order", "confirm_order"]
    assert [saga["status"] for saga in ended] == ["SUCCEEDED"] * 2
    replies = [await system.orchestrator.job(body, f"killed-{number}") for number in (1, 2)]
    assert [(reply.status, reply.headers["Idempotent-Replayed"]) for reply in replies] == [(201, "true")] * 2
    made = await system.catalog.all_orders(customer_id=body["customer_id"])
    assert sorted(order["id"] for order in made) == sorted(
        reply.json["data"]["order"]["id"] for reply in replies
    )
    assert await system.catalog.stock(body) == (8, 0)
    await nothing_is_off(system)


async def test_a_saga_outlives_the_death_of_orders(system: System) -> None:
    body = await system.catalog.basket()
    held = Held()
    system.to_orders.breaks("/confirm", *[held] * MANY)
    asking = asyncio.create_task(system.orchestrator.job(body, "orders-killed"))
    await held.arrived()

    await system.processes.orders.kill()
    held.let_go()
    unfinished = await asking
    await system.processes.orders.start()
    problem = not_ended(unfinished, "saga.unfinished", step="confirm_order")
    saga = await system.orchestrator.ended(problem["saga_id"])

    assert saga["status"] == "SUCCEEDED"
    reply = await system.orchestrator.job(body, "orders-killed")
    assert (reply.status, reply.json["data"]["order"]) == (201, saga["order"])
    (order,) = await system.catalog.all_orders(customer_id=body["customer_id"])
    assert order["status"] == "CONFIRMED"
    assert await system.catalog.stock(body) == (8, 0)
    await nothing_is_off(system)


# --- a process that is stopped ------------------------------------------------------------------


async def test_an_orchestrator_that_is_stopped_under_load_loses_nothing(system: System) -> None:
    body = await system.catalog.basket(qty=1, stock=32)
    answers: dict[str, Reply] = {}

    async def client(number: int) -> None:
        for job in range(4):
            key = f"load-{number}-{job}"
            answers[key] = await continued(system.orchestrator, body, key)

    async def some_are_answered() -> bool:
        return len(answers) >= 4

    clients = asyncio.gather(*(client(number) for number in range(8)))
    await until(some_are_answered)

    code = await system.processes.orchestrator.terminate()
    before_the_rest = len(answers)
    await system.processes.orchestrator.start()
    await clients

    assert code == 0
    assert before_the_rest < 32
    assert {reply.status for reply in answers.values()} == {201}
    made = await system.catalog.all_orders(customer_id=body["customer_id"])
    assert {order["status"] for order in made} == {"CONFIRMED"}
    assert len(made) == 32
    assert {order["id"] for order in made} == {
        reply.json["data"]["order"]["id"] for reply in answers.values()
    }
    assert await system.catalog.stock(body) == (0, 0)
    for status in UNFINISHED:
        left = await system.orchestrator.client.get(f"/orchestrator/sagas?status={status}")
        assert left.json["data"] == []
    await nothing_is_off(system)


# --- what can be seen ---------------------------------------------------------------------------


async def test_one_job_is_one_trace_from_the_request_to_the_commits(system: System) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    caller = "b7ad6b7169203331"
    body = await system.catalog.basket()

    reply = await system.orchestrator.job(
        body, "traced", traceparent=f"00-{trace_id}-{caller}-01", X_Correlation_Id="req-456"
    )

    async def exported() -> bool:
        names = [span.name for span in system.traces.of(trace_id) if span.kind == "SERVER"]
        return len(names) >= 5 and names.count("GET /admin/customers/internal/customers/{customer_id}") >= 2

    assert reply.status == 201
    await until(exported)
    tree = Tree(system.traces.of(trace_id))
    (job,) = tree.below(caller)
    assert (job.service, job.kind, job.name) == (
        "orchestrator",
        "SERVER",
        "POST /orchestrator/create-and-confirm-order",
    )
    assert job.attributes["correlation_id"] == "req-456"
    steps = [span for span in tree.below(job.span_id) if span.kind == "INTERNAL"]
    assert [step.name for step in steps] == [
        "saga validate_customer",
        "saga create_order",
        "saga confirm_order",
    ]
    validated, created, confirmed = (tree.called_by(step) for step in steps)
    assert (validated.service, validated.kind) == ("customers", "SERVER")
    assert (created.service, created.name) == ("orders", "POST /admin/orders/create-order")
    assert (confirmed.service, confirmed.name) == ("orders", "POST /admin/orders/{order_id}/confirm")
    assert tree.called_by(created).service == "customers"
    assert "SELECT customers" in tree.statements_of(validated)
    for writer in (job, created, confirmed):
        assert "COMMIT" in tree.statements_of(writer)


class Tree:
    """The spans of a trace by their parents."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    def below(self, span_id: str) -> list[Span]:
        """The children of a span in the order in which they began."""
        return [span for span in self._spans if span.parent_id == span_id]

    def statements_of(self, span: Span) -> list[str]:
        """What the span sent to its database."""
        return [child.name for child in self.below(span.span_id) if child.is_statement]

    def called_by(self, span: Span) -> Span:
        """The span at the other end of the last HTTP call that this one made."""
        *_, call = [
            child for child in self.below(span.span_id) if child.kind == "CLIENT" and not child.is_statement
        ]
        (server,) = self.below(call.span_id)
        return server
