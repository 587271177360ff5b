"""`python -m orchestrator trace`: what is told of an order, and what is said when it cannot be told."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from orchestrator.__main__ import cli
from orchestrator.settings import Settings
from tests.client import HOST
from tests.databases import Databases, DatabaseUrl
from tests.orchestrator.shop import Replica, Shop
from tests.processes import run, variables

NOBODY = "http://127.0.0.1:9"
FIRST, LATER = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{FIRST}-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for an orders service that is not there."""
    monkeypatch.setattr("orchestrator.story.command.PATIENCE_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Give the loggers back as they were: the command silences those of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


async def told(of: str, url: str, *options: str, orders: str = NOBODY, **more: str) -> Result:
    """Run the command in a thread: it brings its own event loop."""
    given = {**variables(url, orders_api_base=orders), **more}
    return await asyncio.to_thread(CliRunner().invoke, cli, ["trace", of, *options], env=given)


def document(*traces: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """OTLP JSON with a span a trace: its trace id, its name and what else it has."""
    spans = [
        {
            "traceId": trace_id,
            "spanId": f"{number:016x}",
            "name": name,
            "kind": 2,
            "startTimeUnixNano": str(number * 1_000_000),
            "endTimeUnixNano": str(number * 1_000_000 + 500_000),
            **more,
        }
        for number, (trace_id, name, more) in enumerate(traces, start=1)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def linked_to(trace_id: str) -> dict[str, Any]:
    return {"links": [{"traceId": trace_id, "spanId": f"{1:016x}"}]}


async def test_the_story_is_found_by_each_of_its_names(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    body = await shop.basket(qty=2)
    reply = await orchestrator.job(body, X_Correlation_Id="req-456", traceparent=SAMPLED)
    await orchestrator.job(await shop.basket(), key="another", X_Correlation_Id="req-457")
    number, saga_id = reply.json["data"]["order"]["order_number"], reply.json["saga_id"]
    url = database_url(Settings)

    stories = [await told(name, url, orders=shop.orders.url) for name in ("req-456", saga_id, number, FIRST)]

    assert [story.exit_code for story in stories] == [0] * 4, stories[0].output
    assert len({story.stdout for story in stories}) == 1
    shown = stories[0].stdout
    assert f"Saga {saga_id}" in shown
    assert f"Order {number}" in shown
    words = [" ".join(line.split()) for line in shown.splitlines()]
    assert "status SUCCEEDED" in words
    assert "status CONFIRMED" in words
    assert f"trace id {FIRST}" in words
    assert [line.split()[0] for line in words if " done 1 20" in line] == [
        "validate_customer",
        "create_order",
        "confirm_order",
    ]
    assert any(line.endswith("— → CREATED req-456") for line in words)
    assert any(line.endswith("CREATED → CONFIRMED req-456") for line in words)
    assert any(" reserve DESK-" in line and line.endswith("+0 +2") for line in words)
    assert any(" sale DESK-" in line and line.endswith("-2 -2") for line in words)


async def test_the_story_as_json_has_all_of_it(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    reply = await orchestrator.job(await shop.basket(qty=2), X_Correlation_Id="req-456")

    shown = await told("req-456", database_url(Settings), "--json", orders=shop.orders.url)

    story = json.loads(shown.stdout)
    (saga,), (order,) = story["sagas"], story["orders"]
    assert saga["id"] == reply.json["saga_id"]
    assert [step["step"] for step in saga["steps"]] == ["validate_customer", "create_order", "confirm_order"]
    assert [event["to_status"] for event in order["history"]] == ["CREATED", "CONFIRMED"]
    moved = [(line["kind"], line["stock_delta"], line["reserved_delta"]) for line in order["movements"]]
    assert moved == [("reserve", 0, 2), ("sale", -2, -2)]
    assert (story["spans"], story["gaps"]) == ([], [])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_saga_that_never_heard_of_its_order_is_told_with_it(
    shop: Shop, database_url: DatabaseUrl
) -> None:
    orchestrator = await shop.replica(peer_deadline=0.2)
    body = await shop.basket()
    shop.to_orders.down = True
    reply = await orchestrator.job(body, X_Correlation_Id="req-456")
    made = await shop.orders.post("/admin/orders/create-order", body, headers={"X-Correlation-Id": "req-456"})

    shown = await told(reply.json["saga_id"], database_url(Settings), orders=shop.orders.url)

    assert shown.exit_code == 0, shown.output
    assert f"Order {made.json['data']['order_number']}" in shown.stdout
    assert "unavailable" in shown.stdout


async def test_what_orders_cannot_be_asked_for_is_said(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    reply = await orchestrator.job(await shop.basket(), X_Correlation_Id="req-456")
    url = database_url(Settings)

    down = await told("req-456", url)
    elsewhere = await told("req-456", url, orders=shop.customers.url)

    assert (down.exit_code, elsewhere.exit_code) == (3, 3)
    for shown in (down, elsewhere):
        assert f"Saga {reply.json['saga_id']}" in shown.stdout
        assert "have to be asked of orders" in shown.stdout
    assert "orders cannot be reached" in down.stdout
    assert "orders is not what answers at its address" in " ".join(elsewhere.stdout.split())


async def test_of_what_nobody_knows_nothing_is_told(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    await orchestrator.job(await shop.basket())
    url = database_url(Settings)

    for name in ("req-404", "0" * 31 + "1", "ORD-00000999"):
        shown = await told(name, url, orders=shop.orders.url)

        assert (shown.exit_code, shown.stdout) == (1, "")
        assert shown.stderr == f"orchestrator: no saga and no order of {name}\n"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_order_number_without_orders_says_why_nothing_is_found(database_url: DatabaseUrl) -> None:
    shown = await told("ORD-00000001", database_url(Settings))

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "no saga and no order of ORD-00000001" in shown.stderr
    assert "orders cannot be reached" in shown.stderr


async def test_a_database_without_the_schema_is_one_line(databases: Databases, tmp_path: Path) -> None:
    shown = await told("req-456", databases.empty(tmp_path))

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        "orchestrator: The database schema is not what this release needs; run the command migrate.\n"
    )


async def test_what_cannot_be_an_id_is_refused(tmp_path: Path) -> None:
    shown = await told("what is this", f"sqlite:///{tmp_path / 'none.db'}")

    assert shown.exit_code == 2


# --- traces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_traces_come_from_a_file_with_those_that_continue_them(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    await orchestrator.job(await shop.basket(), X_Correlation_Id="req-456", traceparent=SAMPLED)
    file = tmp_path / "traces.json"
    spans = document(
        (FIRST, "the job", {}), (LATER, "saga resumed", linked_to(FIRST)), ("2" * 32, "another order", {})
    )
    file.write_text(json.dumps(spans))
    given = variables(database_url(Settings), orders_api_base=shop.orders.url)

    shown = await asyncio.to_thread(run, "orchestrator", "trace", "req-456", "--traces", str(file), **given)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Trace {FIRST}" in shown.stdout
    assert f"the job · continued in trace {LATER}" in shown.stdout
    assert f"saga resumed · linked to trace {FIRST}" in " ".join(shown.stdout.split())
    assert "another order" not in shown.stdout


@asynccontextmanager
async def jaeger(traces: dict[str, Any]) -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """What Jaeger answers to the two questions it is asked, and the services and tags it was asked for."""
    searched: list[tuple[str, str]] = []

    async def one(request: web.Request) -> web.Response:
        found = traces.get(request.match_info["trace_id"])
        return web.json_response({"result": found} if found else {}, status=200 if found else 404)

    async def search(request: web.Request) -> web.Response:
        assert int(request.query["start"]) < int(request.query["end"])
        searched.append((request.query["service"], request.query["tags"]))
        return web.json_response({"data": [{"traceID": trace_id.lstrip("0")} for trace_id in traces]})

    app = web.Application()
    app.router.add_get("/jaeger/api/v3/traces/{trace_id}", one)
    app.router.add_get("/jaeger/api/traces", search)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/jaeger/", searched
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_traces_come_from_jaeger_with_those_that_continue_them(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    reply = await orchestrator.job(await shop.basket(), X_Correlation_Id="req-456", traceparent=SAMPLED)
    kept = {
        FIRST: document((FIRST, "the job", {})),
        LATER: document((LATER, "saga resumed", linked_to(FIRST))),
    }

    async with jaeger(kept) as (address, searched):
        options = ("--traces", address)
        shown, renamed = [
            await told("req-456", database_url(Settings), *options, orders=shop.orders.url, **more)
            for more in ({}, {"OTEL_SERVICE_NAME": "shop-orchestrator"})
        ]

    assert (shown.exit_code, renamed.exit_code) == (0, 0), shown.output
    assert f"the job · continued in trace {LATER}" in shown.stdout
    assert f"Trace {LATER}" in shown.stdout
    assert [service for service, _ in searched] == ["orchestrator", "shop-orchestrator"]
    assert {tags for _, tags in searched} == {json.dumps({"saga_id": reply.json["saga_id"]})}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_traces_that_cannot_be_had_are_said(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    await orchestrator.job(await shop.basket(), X_Correlation_Id="req-456", traceparent=SAMPLED)
    broken = tmp_path / "traces.json"
    broken.write_text("no JSON")
    url = database_url(Settings)

    async with jaeger({}) as (address, _):
        sources = {
            address: f"Trace {FIRST} is not there",
            f"{address}nothing/": f"Trace {FIRST} is not there",
            shop.orders.url: f"Trace {FIRST} is not there",
            NOBODY: f"{NOBODY} cannot be asked",
            str(broken): "line 1 is no JSON",
            str(tmp_path / "none.json"): "No such file or directory",
        }
        for source, said in sources.items():
            shown = await told("req-456", url, "--traces", source, orders=shop.orders.url)

            assert shown.exit_code == 3, source
            assert said in " ".join(shown.stdout.split()), source
            assert "status SUCCEEDED" in " ".join(shown.stdout.split())
