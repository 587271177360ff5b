"""The smoke test before three real services, as they are and behind wires that misbehave."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis.database import Database
from orchestrator.__main__ import cli
from orchestrator.smoke.command import succeeds
from orders.reconcile import find_discrepancies
from tests.client import Serve
from tests.databases import ROOT, MakeSettings
from tests.issuer import Issuer
from tests.orchestrator.shop import Replica, Shop, until
from tests.orchestrator.wire import (
    Fault,
    PassOn,
    Wire,
    answers,
    breaks_off,
    loses_the_answer,
    open_wire,
    passes_on,
)
from tests.processes import environment

STEPS = [
    "services", "customer", "products", "order", "replay", "shortage", "stock", "ledger", "books", "cleanup",
]  # fmt: skip
JOB = "/create-and-confirm-order"
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@dataclass
class Told:
    """What one run said."""

    succeeded: bool = False
    lines: list[str] = field(default_factory=list)

    def steps(self, outcome: str) -> list[str]:
        return [line.split()[1] for line in self.lines if line.startswith(f"{outcome} ")]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass
class System:
    """The wires that lead to three services."""

    customers: Wire
    orders: Wire
    orchestrator: Wire

    @property
    def urls(self) -> tuple[str, str, str]:
        return self.customers.url, self.orders.url, self.orchestrator.url

    async def smoke(self, *, token_file: Path | None = None, patience: float = 60, **urls: str) -> Told:
        """One run in this process; `urls` are those that are given wrongly."""
        told = Told()
        right = dict(zip(("customers", "orders", "orchestrator"), self.urls, strict=True))
        options = {"token_file": token_file, "patience": patience, "say": told.lines.append}
        told.succeeded = await succeeds(**{**right, **urls}, **options)  # type: ignore[arg-type]  # by their names
        return told

    async def process(self) -> tuple[int | None, Told]:
        """One run as operators start it, told of a database that is not there: it needs none."""
        names = ("CUSTOMERS_API_BASE", "ORDERS_API_BASE", "ORCHESTRATOR_API_BASE")
        given = dict(zip(names, self.urls, strict=True)) | {"DB_HOST": "nowhere.invalid"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "smoke",
            cwd=ROOT, env=environment(**given),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        return process.returncode, Told(lines=out.decode().splitlines())


@pytest.fixture
async def system(shop: Shop, orchestrator: Replica) -> AsyncIterator[System]:
    async with open_wire() as to_orchestrator:
        to_orchestrator.target = orchestrator.client.url
        yield System(shop.to_customers, shop.to_orders, to_orchestrator)


# --- all is well --------------------------------------------------------------------------------


async def test_it_orders_and_cleans_up_again_and_again_and_at_the_same_time(
    shop: Shop, system: System, make_settings: MakeSettings
) -> None:
    runs = [*await asyncio.gather(system.process(), system.process()), await system.process()]

    for code, told in runs:
        assert (code, told.steps("ok")) == (0, STEPS), told.text
        assert told.lines[-1] == "The smoke test succeeded."
        assert len(told.lines) == len(STEPS) + 1
    made = await shop.all_orders()
    assert [(order["status"], order["total_cents"]) for order in made] == [("CONFIRMED", 3430)] * 3
    for client, path in ((shop.customers, "/admin/customers"), (shop.orders, "/admin/products")):
        found = (await client.get(f"{path}/find-all?limit=100")).json["data"]
        assert {one["is_active"] for one in found} == {False}
    database = Database(make_settings(orders.settings.Settings))
    assert await find_discrepancies(database) == []
    await database.close()


@only_sqlite
async def test_services_that_are_just_starting_are_waited_for(system: System) -> None:
    async def was_refused() -> bool:
        return len(system.orders.calls) > 2  # aiohttp itself repeats a GET once

    system.orders.down = True
    system.customers.breaks("/health", answers(503, {"code": "db.migrating"}))
    system.orchestrator.breaks(JOB, loses_the_answer, answers(503, {"code": "saga.unfinished"}))
    running = asyncio.create_task(system.smoke())
    await until(was_refused)
    system.orders.down = False

    told = await running

    assert told.steps("ok") == STEPS, told.text
    assert f"...     waiting for orders at {system.orders.url}: the connection broke" in told.lines
    assert 'it answers 503: {"code": "db.migrating"}' in told.text


@only_sqlite
async def test_what_is_not_there_in_time_ends_it(system: System) -> None:
    system.customers.down = True

    told = await system.smoke(patience=0.5)

    assert (told.succeeded, told.steps("ok"), told.steps("FAILED")) == (False, [], ["services"])
    assert f"GET {system.customers.url}/: the connection broke" in told.text
    assert "Look at the pods and the log of customers" in told.text
    assert system.orchestrator.calls == ["GET /", "GET /health"]


# --- something is wrong -------------------------------------------------------------------------


def says(edit: Callable[[Any], object], status: int | None = None) -> Fault:
    """The service does its work and answers something else."""

    async def fault(_request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        reply = await pass_on()
        assert reply.text is not None
        content = json.loads(reply.text)
        edit(content)
        again = {name: value for name, value in reply.headers.items() if name == "Idempotent-Replayed"}
        return web.json_response(content, status=status or reply.status, headers=again)

    return fault


def data(**fields: Any) -> Fault:
    return says(lambda content: content["data"].update(fields))


async def forgets_that_it_is_a_replay(_request: web.Request, pass_on: PassOn) -> web.StreamResponse:
    reply = await pass_on()
    del reply.headers["Idempotent-Replayed"]
    return reply


def orders_again(system: System) -> Fault:
    """What comes with a key that was used before is done once more."""

    async def fault(request: web.Request, _pass_on: PassOn) -> web.StreamResponse:
        await request.read()
        async with system.orchestrator.session.post(
            system.orchestrator.target + request.path,
            json=await request.json(),
            headers={"Idempotency-Key": "other"},
        ) as response:
            return web.Response(
                status=response.status,
                body=await response.read(),
                headers={"Idempotent-Replayed": "true"},
                content_type="application/json",
            )

    return fault


WRONG: dict[str, tuple[str, str, tuple[Fault, ...], list[str], str]] = {
    "a replay is not marked": (
        "orchestrator", JOB, (passes_on, forgets_that_it_is_a_replay), ["replay"], "Idempotent-Replayed",
    ),
    "a replay is another text": (
        "orchestrator", JOB, (passes_on, says(dict.clear)), ["replay"], "answered by other bytes: '{}'",
    ),
    "the order is not confirmed": (
        "orchestrator", JOB, (says(lambda body: body["data"]["order"].update(status="CREATED")),), ["order"],
        "the order's status: wanted 'CONFIRMED', found 'CREATED'",
    ),
    "the total is another one": (
        "orchestrator", JOB, (says(lambda body: body["data"]["order"].update(total_cents=1)),), ["order"],
        "the order's total in cents: wanted 3430, found 1",
    ),
    "more than there is, is sold": (
        "orchestrator", JOB, (passes_on, passes_on, says(dict.clear, 201)), ["shortage"],
        "was answered 201: {}",
    ),
    "a shortage has another code": (
        "orchestrator", JOB, (passes_on, passes_on, says(lambda body: body.update(code="stock.none"))),
        ["shortage"], "wanted 'stock.insufficient', found 'stock.none'",
    ),
    "the stock does not move": (
        "orders", "/find-one/1", (data(stock=10),), ["stock"], "-1: wanted 8, found 10",
    ),
    "stock stays reserved": (
        "orders", "/find-one/2", (data(reserved=3),), ["stock"], "-2: wanted 0, found 3",
    ),
    "the ledger says something else": (
        "orders", "/movements", (says(lambda body: body["data"][0].update(stock_delta=-7)),), ["ledger"],
        "the sums of the ledger by product",
    ),
    "the ledger lacks a line": (
        "orders", "/movements", (says(lambda body: body["data"].pop()),), ["ledger"],
        "what the ledger still holds",
    ),
    "the order is there twice": (
        "orders", "/find-all", (says(lambda body: body["data"].append(body["data"][0])),), ["books"],
        "the orders of the customer: wanted [1], found [1, 1]",
    ),
    "products stay active": (
        "orders", "/logic-delete/1", (data(is_active=True),), ["cleanup"], "wanted False, found True",
    ),
    "customers stay active": (
        "customers", "/logic-delete/1", (data(is_active=True),), ["cleanup"], "wanted False, found True",
    ),
    "an answer is none": (
        "orders", "/movements", (answers(200, {"data": [{"product_id": "x"}]}),), ["ledger"],
        "answered without a valid data.0.product_id",
    ),
    "a refusal comes from something else": (
        "customers", "/create-customer", (answers(404),), ["customer"], "was answered 404",
    ),
    "nobody knows whether a customer was made": (
        "customers", "/create-customer", (breaks_off,), ["customer"], "the connection broke",
    ),
    "a gateway does not know it either": (
        "customers", "/create-customer", (says(dict.clear, 504),), ["customer"],
        "/create-customer: it answers 504",
    ),
}  # fmt: skip


@only_sqlite
@pytest.mark.parametrize("name", WRONG)
async def test_it_fails_and_says_why_when(system: System, name: str) -> None:
    service, path_end, faults, steps, reason = WRONG[name]
    getattr(system, service).breaks(path_end, *faults)

    told = await system.smoke()

    assert not told.succeeded
    assert told.steps("FAILED") == steps, told.text
    missed = STEPS[STEPS.index(steps[0]) + 1 : -1] if steps[0] in STEPS[:4] else []
    made_nothing = ["cleanup"] if steps == ["customer"] else []
    assert told.steps("ok") == [one for one in STEPS if one not in {*steps, *missed, *made_nothing}]
    assert reason in told.text
    (correlation_id,) = set(re.findall(r"smoke-[0-9a-f]{10}(?= *[,;.]|$)", told.lines[-1]))
    assert told.lines[-1].endswith(f"python -m orchestrator trace {correlation_id}")


@only_sqlite
async def test_it_fails_when_a_key_makes_a_second_order(system: System) -> None:
    system.orchestrator.breaks(JOB, passes_on, orders_again(system))

    told = await system.smoke()

    assert told.steps("FAILED") == ["replay", "shortage", "stock", "books"], told.text


@only_sqlite
async def test_an_address_that_is_another_services_is_named(system: System) -> None:
    told = await system.smoke(orders=system.customers.url)

    assert told.steps("FAILED") == ["services"]
    assert f"{system.customers.url} is customers, not orders." in told.text
    assert "Look at the address in --orders (ORDERS_API_BASE)." in told.text


# --- access tokens ------------------------------------------------------------------------------


@only_sqlite
async def test_with_access_tokens_it_needs_the_scopes_that_its_help_lists(
    make_settings: MakeSettings, serve: Serve, issuer: Issuer, tmp_path: Path
) -> None:
    def secured(of: Any, **bases: str) -> Any:
        return make_settings(of, **issuer.settings(**bases))

    first = await serve(customers.app.create_app(secured(customers.settings.Settings)))
    bases = {"customers_api_base": first.url}
    second = await serve(orders.app.create_app(secured(orders.settings.Settings, **bases)))
    bases["orders_api_base"] = second.url
    third = await serve(orchestrator.app.create_app(secured(orchestrator.settings.Settings, **bases)))
    token = tmp_path / "token"
    said = CliRunner().invoke(cli, ["smoke", "--help"], terminal_width=200).output
    scopes = re.findall(r"[a-z]+:(?:read|write)", said)

    async def smoke(*scopes: str) -> Told:
        token.write_text(issuer.token(" ".join(scopes)))
        told = Told()
        told.succeeded = await succeeds(first.url, second.url, third.url, token, 60, told.lines.append)
        return told

    assert (await smoke(*scopes)).succeeded
    for missing in scopes:
        told = await smoke(*(scope for scope in scopes if scope != missing))
        assert told.steps("FAILED") != []
        assert f"{missing}" in told.text
        assert "Look at the token in --token-file" in told.text


@pytest.mark.parametrize("option", ["--url", "--customers", "--orders", "--token-file"])
def test_what_is_no_address_or_token_ends_with_2(option: str) -> None:
    ended = CliRunner().invoke(cli, ["smoke", option, "localhost:3010"])

    assert ended.exit_code == 2
    assert option in ended.output
