"""`python -m orchestrator job`, as a real process against the three real services on sockets."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from typer.testing import CliRunner

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from orchestrator.__main__ import cli
from orchestrator.answers import JOB_PATH
from orchestrator.job.client import connected
from orchestrator.job.files import Form, OrderFile
from orchestrator.job.lines import MAX_LINE_BYTES, FileUnusable
from orchestrator.job.orders import BadRow, Order
from orchestrator.job.progress import Lines
from orchestrator.job.results import Result, Status
from orchestrator.job.runner import Job
from tests.client import HOST, Client, Serve
from tests.databases import ROOT, SQLite, on_database
from tests.processes import environment

STOCK = 1000
FIELDS = [
    "line", "reference", "status", "order_number", "order_id", "saga_id", "total_cents", "code", "detail",
    "attempts", "replayed",
]  # fmt: skip
HEADER = "reference,customer_id,product_id,qty"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Before the orchestrator: lets `passes` requests through and holds the others until it is opened."""

    def __init__(self) -> None:
        self.passes = sys.maxsize
        self.holds_answers = False
        self.faults: list[Handler] = []
        self._held = 0
        self._changed = asyncio.Condition()

    def middleware(self) -> Any:
        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path != JOB_PATH:
                return await handler(request)
            if self.faults:
                return await self.faults.pop(0)(request)
            self.passes -= 1
            if self.passes >= 0:
                return await handler(request)
            answer = await handler(request) if self.holds_answers else None
            async with self._changed:
                self._held += 1
                self._changed.notify_all()
                await self._changed.wait_for(lambda: self.passes > 0)
            return answer or await handler(request)

        return gate

    async def holds(self, requests: int) -> None:
        """Wait until so many requests are held."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held >= requests)

    async def open(self) -> None:
        async with self._changed:
            self.passes = sys.maxsize
            self._changed.notify_all()


@dataclass
class Done:
    """A job that has ended."""

    exit_code: int
    out: str
    err: str

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """In the order of the file."""
        return sorted(map(json.loads, self.out.splitlines()), key=lambda result: int(result["line"]))

    def of(self, *names: str) -> list[Any]:
        """These fields of the results, in the order of the file."""
        return [tuple(result[name] for name in names) for result in self.results]

    @property
    def statuses(self) -> list[str]:
        return [result["status"] for result in self.results]


class Said(Lines):
    """What an operator is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class System:
    """The services, with a customer and a product in them."""

    def __init__(self, customers: Client, orders: Client, url: str, gate: Gate) -> None:
        self.customers = customers
        self.orders = orders
        self.url = url
        self.gate = gate

    async def start(self, *arguments: str | Path, **options: Any) -> asyncio.subprocess.Process:
        """Start a job. It is told of a database that is not there: it needs none."""
        given = {"ORCHESTRATOR_API_BASE": self.url, "DB_HOST": "nowhere.invalid"}
        given |= options.pop("variables", {})
        streams = {"stdin": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.PIPE, **options}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "job", *map(str, arguments),
            cwd=ROOT, env=environment(**given), stdout=asyncio.subprocess.PIPE, **streams,
        )  # fmt: skip

    async def job(self, *arguments: str | Path, given: bytes | None = None, **options: Any) -> Done:
        """Run a job to its end."""
        if given is not None:
            options["stdin"] = asyncio.subprocess.PIPE
        process = await self.start(*arguments, **options)
        return await ended(process, given)

    async def run(self, file: Path, **options: Any) -> Done:
        """The same without a process of its own, to save time."""
        results, display = [], Said()
        options = {"url": self.url, "patience": 120, **options}
        with file.open("rb") as opened:
            async with connected(**options) as orchestrator:
                job = Job(OrderFile(opened), orchestrator, 8, results.append, display)
                exit_code = await job.run()
        return Done(exit_code, "\n".join(results), "\n".join(display.lines))

    async def all_orders(self) -> list[Any]:
        reply = await self.orders.get("/admin/orders/find-all?limit=100")
        assert not reply.json["meta"]["has_next"]
        orders: list[Any] = reply.json["data"]
        return orders

    async def sold(self) -> int:
        """Units of the first product that are gone."""
        product = (await self.orders.get("/admin/products/find-one/1")).json["data"]
        assert product["reserved"] == 0
        return STOCK - int(product["stock"])


async def ended(process: asyncio.subprocess.Process, given: bytes | None = None) -> Done:
    out, err = await process.communicate(given)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), (err or b"").decode())


@pytest.fixture
async def system(sqlite: SQLite, tmp_path: Path, serve: Serve) -> System:
    def settings(of: Any, **peers: str) -> Any:
        return of(**on_database(sqlite.fresh(of, tmp_path)), **peers)

    gate = Gate()
    first = await serve(customers.app.create_app(settings(customers.settings.Settings)))
    second = await serve(
        orders.app.create_app(settings(orders.settings.Settings, customers_api_base=first.url))
    )
    peers = {"customers_api_base": first.url, "orders_api_base": second.url}
    app = orchestrator.app.create_app(settings(orchestrator.settings.Settings, **peers))
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


def csv_of(folder: Path, *rows: str, header: str = HEADER) -> Path:
    file = folder / "orders.csv"
    file.write_text("\n".join([header, *rows, ""]))
    return file


def jsonl_of(folder: Path, *orders: dict[str, Any] | str) -> Path:
    file = folder / "orders.jsonl"
    lines = [order if isinstance(order, str) else json.dumps(order) for order in orders]
    file.write_text("\n".join([*lines, ""]))
    return file


def order(reference: Any, qty: int = 1, **fields: Any) -> dict[str, Any]:
    return {"reference": reference, "customer_id": 1, "items": [{"product_id": 1, "qty": qty}], **fields}


# --- a whole run ----------------------------------------------------------------------------------


async def test_csv_has_an_item_a_row(system: System, tmp_path: Path) -> None:
    file = csv_of(tmp_path, "A,1,1,2", "A,1,2,3", "B,1,1,5")

    done = await system.job(file)

    assert done.exit_code == 0, done.err
    assert [list(result) for result in done.results] == [FIELDS] * 2
    assert done.of(
        "line", "reference", "status", "total_cents", "code", "detail", "attempts", "replayed"
    ) == [
        (2, "A", "succeeded", 8000, None, None, 1, False),
        (4, "B", "succeeded", 5000, None, None, 1, False),
    ]
    made = {made["id"]: made for made in await system.all_orders()}
    assert {result["order_id"]: result["order_number"] for result in done.results} == {
        order_id: made["order_number"] for order_id, made in made.items()
    }
    assert all(made["status"] == "CONFIRMED" for made in made.values())
    assert await system.sold() == 7


async def test_json_lines_has_an_order_a_line(system: System, tmp_path: Path) -> None:
    file = jsonl_of(
        tmp_path, order("A", purchase_order_number="PO-1", correlation_id="req-456"), "", order("B", 2)
    )

    done = await system.run(file)

    assert done.exit_code == 0, done.err
    assert done.of("line", "reference", "status", "total_cents") == [
        (1, "A", "succeeded", 1000),
        (3, "B", "succeeded", 2000),
    ]
    first = next(made for made in await system.all_orders() if made["purchase_order_number"] == "PO-1")
    assert first["correlation_id"] == "req-456"
    assert first["id"] == done.results[0]["order_id"]


@pytest.mark.parametrize("name", ["orders.csv", "orders.jsonl"])
async def test_the_examples_work_with_the_sample_data(system: System, name: str) -> None:
    done = await system.run(Path("examples", name))

    assert done.exit_code == 0, done.err
    assert done.statuses == ["succeeded"] * 3


async def test_run_again_it_repeats_nothing(system: System, tmp_path: Path) -> None:
    rows = [f"A-{number},1,1,1" for number in range(10)]
    first = await system.run(csv_of(tmp_path, *rows))
    moved = tmp_path / "moved"
    moved.mkdir()

    # Under another name, in another order and in the other format it is still the same orders.
    again = await system.run(csv_of(moved, *reversed(rows)))
    other = await system.run(jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(10))))

    assert [done.exit_code for done in (first, again, other)] == [0, 0, 0]
    assert set(first.of("replayed")) == {(False,)}
    assert set(again.of("replayed")) == set(other.of("replayed")) == {(True,)}
    assert sorted(again.of("reference", "order_id")) == sorted(first.of("reference", "order_id"))
    assert other.of("reference", "order_id") == first.of("reference", "order_id")
    assert await system.sold() == len(await system.all_orders()) == 10


async def test_what_succeeds_and_what_does_not_is_told_apart(system: System, tmp_path: Path) -> None:
    short = order("short", STOCK + 1)
    unknown = order("unknown") | {"customer_id": 99}
    file = jsonl_of(tmp_path, order("good"), short, unknown, "{", order("bad", 0), order("last"))

    done = await system.run(file)

    assert done.exit_code == 1
    assert done.of("line", "reference", "status", "code") == [
        (1, "good", "succeeded", None),
        (2, "short", "refused", "stock.insufficient"),
        (3, "unknown", "refused", "customer.not_found"),
        (4, None, "invalid", "row.invalid"),
        (5, "bad", "invalid", "row.invalid"),
        (6, "last", "succeeded", None),
    ]
    assert "6 order(s): 2 succeeded, 2 refused, 2 invalid" in done.err
    assert "line 2 (short) refused: There is not enough stock." in done.err
    assert "line 4 invalid: The line is no JSON" in done.err
    assert "line 5 (bad) invalid: items.0.qty: Input should be greater than or equal to 1." in done.err
    assert len(await system.all_orders()) == 2


async def test_a_refusal_is_final(system: System, tmp_path: Path) -> None:
    file = jsonl_of(tmp_path, order("A", STOCK + 1))
    await system.run(file)
    await system.orders.post("/admin/products/1/adjust-stock", {"delta": 1, "reason": "Found one"})

    again = await system.run(file)
    renamed = await system.run(jsonl_of(tmp_path, order("A-again", STOCK + 1)))

    assert again.of("status", "replayed") == [("refused", True)]
    assert renamed.of("status", "replayed") == [("succeeded", False)]


async def test_a_reference_twice_is_one_order_or_a_fault(system: System, tmp_path: Path) -> None:
    file = jsonl_of(tmp_path, order("A"), order("A"), order("A", 5))

    done = await system.run(file)

    assert done.exit_code == 1
    assert done.of("line", "status", "replayed", "code") == [
        (1, "succeeded", False, None),
        (2, "succeeded", True, None),
        (3, "invalid", False, "idempotency.key_reused"),
    ]
    assert done.results[2]["detail"] == "The reference was used before, for an order with other content."
    assert done.results[0]["order_id"] == done.results[1]["order_id"]
    assert await system.sold() == 1


async def test_of_two_orders_with_one_reference_the_first_is_first(system: System, tmp_path: Path) -> None:
    system.gate.passes, results, display = 0, [], Said()
    with jsonl_of(tmp_path, order("A"), order("A", 5)).open("rb") as opened:
        async with connected(system.url, 120) as orchestrator:
            job = Job(OrderFile(opened), orchestrator, 8, results.append, display)
            running = asyncio.create_task(job.run())
            await system.gate.holds(1)

            job.stop(signal.SIGTERM)
            await system.gate.open()
            exit_code = await running

    assert exit_code == 143
    assert display.lines[0] == "stopping, 1 order(s) in flight"
    assert [json.loads(result)["line"] for result in results] == [1]


@pytest.mark.parametrize("reference", ["Größe 17", "x" * 252, "x" * 1000, "with space"])
async def test_a_reference_that_is_no_key_is_known_again(
    system: System, tmp_path: Path, reference: str
) -> None:
    file = jsonl_of(tmp_path, order(reference))

    done, again = await system.run(file), await system.run(file)

    assert done.of("reference", "status", "replayed") == [(reference, "succeeded", False)]
    assert again.of("reference", "status", "replayed") == [(reference, "succeeded", True)]


@pytest.mark.parametrize(
    "given",
    [
        f"{HEADER}\nA,1,1,1\nB,1,1,1\n".encode(),
        "\ufeffreference;customer_id;product_id;qty\r\nA;1;1;1\r\nB;1;1;1".encode(),
        "\n".join(json.dumps(order(reference)) for reference in "AB").encode(),
        b"\xef\xbb\xbf" + json.dumps(order("A")).encode() + b"\r\n" + json.dumps(order("B")).encode(),
    ],
    ids=["csv", "csv of a spreadsheet", "json lines", "json lines with a mark"],
)
async def test_standard_input_is_read_whatever_it_is(system: System, given: bytes) -> None:
    done = await system.job("-", given=given)

    assert done.exit_code == 0, done.err
    assert done.of("reference", "status") == [("A", "succeeded"), ("B", "succeeded")]


async def test_results_go_to_a_file_if_wanted(system: System, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"

    done = await system.job(jsonl_of(tmp_path, order("A")), "--output", output)

    assert (done.exit_code, done.out) == (0, "")
    assert json.loads(output.read_text())["status"] == "succeeded"


@pytest.mark.parametrize("content", ["", HEADER, HEADER + "\n\n,,,\n"])
async def test_a_file_without_orders_is_no_failure(system: System, tmp_path: Path, content: str) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(content)

    done = await system.run(file)

    assert (done.exit_code, done.out) == (0, "")
    assert "0 order(s)" in done.err


@pytest.mark.parametrize(
    ("file", "options", "reason"),
    [
        ("missing.csv", (), "No such file or directory"),
        (".", (), "Is a directory"),
        ("orders.csv", ("--url", "localhost:3010"), "is no http:// or https:// address"),
        ("orders.csv", ("--concurrency", "65"), "less than or equal to 64"),
        ("orders.csv", ("--output", "."), "is a directory"),
        ("orders.csv", ("--output", "orders.csv"), "would overwrite the orders"),
    ],
)
def test_what_cannot_be_used_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, options: tuple[str, ...], reason: str
) -> None:
    orders = csv_of(tmp_path, "A,1,1,1")
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(cli, ["job", file, *options])

    assert done.exit_code == 2
    assert reason in done.output
    assert orders.read_text() == f"{HEADER}\nA,1,1,1\n"


async def test_a_file_without_a_header_ends_with_2(system: System, tmp_path: Path) -> None:
    done = await system.run(csv_of(tmp_path, header="A,1,1,1"))

    assert (done.exit_code, done.out) == (2, "")
    assert "the header of the CSV lacks 'reference', 'customer_id', 'product_id', 'qty'" in done.err


async def test_results_that_cannot_be_written_end_it_with_2(system: System, tmp_path: Path) -> None:
    done = await system.job(csv_of(tmp_path, "A,1,1,1"), "--output", "/dev/full")

    assert done.exit_code == 2
    assert "job: the results cannot be written: No space left on device" in done.err
    assert "Traceback" not in done.err


def test_help_shows_both_formats_and_the_exit_codes() -> None:
    done = CliRunner().invoke(cli, ["job", "--help"])

    assert '{"reference": "A-17", "customer_id": 1, "items": [{"product_id": 1, "qty": 2}]}' in done.output
    assert "reference,customer_id,product_id,qty,purchase_order_number\n" in done.output
    assert "ORCHESTRATOR_API_BASE" in done.output
    assert "Exit code: 0 all succeeded, 1 some did not, 2 the file" in done.output


def test_the_document_has_every_option_status_and_field() -> None:
    document = (ROOT / "docs" / "job.md").read_text()

    options = {"--url", "--output", "--patience", *FIELDS, *Status}
    assert [
        name for name in sorted(options) if f"`{name}`" not in document and f" {name} " not in document
    ] == []
    assert list(Result.model_fields) == FIELDS


# --- trouble --------------------------------------------------------------------------------------


async def test_with_the_orchestrator_down_orders_are_unfinished_and_the_next_run_completes_them(
    system: System, nobody: str, tmp_path: Path
) -> None:
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(20)))

    down = await system.job(file, "--url", nobody, "--patience", 1)
    up = await system.job(file)

    assert down.exit_code == 1
    assert (
        down.of("status", "code", "detail")
        == [("unfinished", "peer.unavailable", f"{nobody} cannot be reached.")] * 20
    )
    # Once nothing has been heard of it for so long, it is not waited for again and again.
    assert down.results[0]["attempts"] > 1
    assert down.results[-1]["attempts"] == 1
    assert "and 10 more unfinished" in down.err
    assert "Run the same file again" in down.err
    assert up.exit_code == 0
    assert set(up.of("status", "replayed")) == {("succeeded", False)}
    assert await system.sold() == 20


def answers(status: int, **problem: Any) -> Handler:
    async def fault(_request: web.Request) -> web.StreamResponse:
        return web.json_response(problem or None, status=status, headers={"Retry-After": "0"})

    return fault


async def breaks_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "fault",
    [
        answers(503, code="saga.unfinished", detail="Not yet.", retryable=True),
        answers(409, code="idempotency.in_progress", detail="Not yet.", retryable=True),
        answers(502),
        answers(504),
        breaks_off,
    ],
    ids=["503", "409 in progress", "502", "504", "broken connection"],
)
async def test_what_may_pass_is_tried_again_with_the_same_key(
    system: System, tmp_path: Path, fault: Handler
) -> None:
    system.gate.faults = [fault, fault]

    done = await system.run(jsonl_of(tmp_path, order("A")))

    assert done.exit_code == 0, done.err
    assert done.of("status", "attempts", "replayed") == [("succeeded", 3, False)]
    assert await system.sold() == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (answers(503, code="saga.needs_attention", detail="See the saga.", retryable=True), None),
        (answers(404, code="route.not_found", detail="Nothing here."), None),
        (answers(500, code="internal.error", detail="A bug."), None),
        (answers(404), "peer.broken"),
        (answers(201), "peer.broken"),
    ],
)
async def test_what_waiting_does_not_help_is_unfinished_at_once(
    system: System, tmp_path: Path, fault: Handler, code: str | None
) -> None:
    system.gate.faults = [fault]

    done = await system.run(jsonl_of(tmp_path, order("A")))

    assert done.exit_code == 1
    assert done.of("status", "attempts") == [("unfinished", 1)]
    if code is not None:
        assert done.of("code") == [(code,)]


async def test_retry_after_beyond_all_patience_is_not_waited_for(system: System, tmp_path: Path) -> None:
    async def much_later(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "3600"})

    system.gate.faults = [much_later]

    done = await system.run(jsonl_of(tmp_path, order("A")))

    assert done.of("status", "code", "attempts") == [("unfinished", "peer.unavailable", 1)]
    assert "answered 503" in done.results[0]["detail"]


@pytest.mark.parametrize("when", ["before the work", "before the answer"])
async def test_killed_in_the_middle_and_run_again_there_is_one_order_a_reference(
    system: System, tmp_path: Path, when: str
) -> None:
    system.gate.passes, system.gate.holds_answers = 5, when == "before the answer"
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(12)))
    process = await system.start(file, "--concurrency", 4)
    await system.gate.holds(4)

    process.kill()
    killed = await ended(process)
    await system.gate.open()
    again = await system.job(file)

    assert killed.exit_code == -signal.SIGKILL
    assert killed.statuses == ["succeeded"] * 5
    assert again.exit_code == 0, again.err
    assert again.statuses == ["succeeded"] * 12
    assert sum(replayed for (replayed,) in again.of("replayed")) >= 5
    assert len({order_id for (order_id,) in again.of("order_id")}) == 12
    assert await system.sold() == len(await system.all_orders()) == 12


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_takes_no_more_orders_and_waits_for_those_in_flight(
    system: System, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    system.gate.passes = 5
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(12)))
    process = await system.start(file, "--concurrency", 4)
    await system.gate.holds(4)

    process.send_signal(number)
    said = await until_said(process, "stopping, 4 order(s) in flight")
    await system.gate.open()
    stopped = await ended(process)

    assert stopped.exit_code == exit_code, said + stopped.err
    assert stopped.statuses == ["succeeded"] * 9
    assert "stopped after" in stopped.err
    assert "9 order(s): 9 succeeded" in stopped.err
    assert await system.sold() == 9


async def test_a_second_signal_does_not_wait(system: System, tmp_path: Path) -> None:
    system.gate.passes = 2
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(6)))
    process = await system.start(file, "--concurrency", 2)
    await system.gate.holds(2)

    process.send_signal(signal.SIGINT)
    await until_said(process, "stopping, 2 order(s) in flight")
    process.send_signal(signal.SIGINT)
    stopped = await ended(process)
    await system.gate.open()
    again = await system.job(file)

    assert stopped.exit_code == 130
    assert (
        sorted(stopped.of("status", "code"))
        == [("succeeded", None)] * 2 + [("unfinished", "job.interrupted")] * 2
    )
    assert again.statuses == ["succeeded"] * 6
    assert await system.sold() == 6


async def test_a_signal_ends_the_wait_for_standard_input(system: System) -> None:
    process = await system.start("-", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(order("A")).encode() + b"\n")
    assert process.stdout is not None
    first = await process.stdout.readline()

    process.send_signal(signal.SIGINT)
    await process.wait()

    assert json.loads(first)["status"] == "succeeded"  # before the end of the input
    assert process.returncode == 130


async def until_said(process: asyncio.subprocess.Process, text: str) -> str:
    """Read standard error up to a line with this text."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        line = await process.stderr.readline()
        assert line, said
        said += line.decode()
    return said


# --- what is seen of it ---------------------------------------------------------------------------


async def test_progress_is_lines_where_there_is_no_terminal(system: System, tmp_path: Path) -> None:
    done = await system.job(jsonl_of(tmp_path, order("A"), order("B")))

    lines = done.err.splitlines()
    assert all(line.startswith("job: ") for line in lines)
    assert lines[0] == "job: 100% of the file, 2 order(s): 2 succeeded"
    assert lines[-1].startswith("job: finished after ")
    assert lines[-1].endswith(": 2 order(s): 2 succeeded")


async def test_progress_says_what_is_waited_for(system: System, nobody: str, tmp_path: Path) -> None:
    process = await system.start(jsonl_of(tmp_path, order("A")), "--url", nobody)

    said = await until_said(process, "to be tried again")
    process.send_signal(signal.SIGTERM)
    await ended(process)

    assert f"0 order(s); 1 in flight, 1 to be tried again: {nobody} cannot be reached." in said


async def test_progress_is_a_bar_on_a_terminal(system: System, tmp_path: Path) -> None:
    terminal, its_end = os.openpty()
    try:
        process = await system.start(
            jsonl_of(tmp_path, order("A"), "{"), stderr=its_end, variables={"TERM": "xterm", "COLUMNS": "200"}
        )
    finally:
        os.close(its_end)
    shown, done = await asyncio.gather(asyncio.to_thread(read_all, terminal), ended(process))

    assert done.statuses == ["succeeded", "invalid"]
    assert "100%" in shown
    assert "2 order(s): 1 succeeded, 1 invalid" in shown
    assert "line 2 invalid: The line is no JSON" in shown
    assert "job:" not in shown


def read_all(terminal: int) -> str:
    """What a terminal is shown until its other end is closed, which Linux reports as an error."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                chunk = stream.read(65536)
            except OSError:
                chunk = b""
            if not chunk:
                return shown.decode()
            shown += chunk


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Span]]]:
    """Something that takes spans over OTLP."""
    spans: list[Span] = []

    async def receive(request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield f"http://{HOST}:{runner.addresses[0][1]}", spans
    await runner.cleanup()


async def test_every_order_is_a_trace_that_is_linked_to_the_job(system: System, tmp_path: Path) -> None:
    file = jsonl_of(tmp_path, order("A"), order("B"), order("C", correlation_id="req-456"))

    async with collector() as (url, spans):
        done = await system.job(file, variables={"OTEL_EXPORTER_OTLP_ENDPOINT": url})

    assert done.exit_code == 0, done.err
    (job,) = [span for span in spans if span.name == "job"]
    tried = [span for span in spans if span.name == "job order"]
    assert len({span.trace_id for span in (job, *tried)}) == 4
    assert all(span.parent_span_id == b"" for span in tried)
    assert [[link.span_id for link in span.links] for span in tried] == [[job.span_id]] * 3
    calls = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert {(call.trace_id, call.parent_span_id) for call in calls} == {
        (span.trace_id, span.span_id) for span in tried
    }
    named = {made["id"]: made["correlation_id"] for made in await system.all_orders()}
    traces = {span.trace_id.hex() for span in tried}
    assert named[done.results[2]["order_id"]] == "req-456"
    assert {named[result["order_id"]] for result in done.results[:2]} < traces


# --- files ----------------------------------------------------------------------------------------


async def rows_of(file: BinaryIO, form: Form | None = None) -> list[Order | BadRow]:
    return [row async for row in OrderFile(file, form).rows()]


async def read(tmp_path: Path, content: str | bytes, name: str = "orders.csv") -> list[Order | BadRow]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with path.open("rb") as file:
        return await rows_of(file)


def shown(rows: list[Order | BadRow]) -> list[Any]:
    """The rows as line and reference, with the quantities or the fault."""
    return [
        (row.line, row.reference, row.fault)
        if isinstance(row, BadRow)
        else (row.line, row.reference, [item.qty for item in row.content.items])
        for row in rows
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("A,1,1", "The row has 3 cells, the header has 4."),
        ("A,1,1,1,1", "The row has 5 cells, the header has 4."),
        (",1,1,1", "The row has no reference."),
        ('"A,1,1,1', "The row is no CSV: unexpected end of data."),
        ('"A"B,1,1,1', "The row is no CSV: ',' expected after '\"'."),
        (b"\xff,1,1,1", "The line is not UTF-8."),
        ("A,1,1," + "1" * MAX_LINE_BYTES, f"The line has more than {MAX_LINE_BYTES} bytes."),
    ],
)
async def test_a_csv_row_that_cannot_be_read_spoils_the_orders_around_it(
    tmp_path: Path, row: str | bytes, fault: str
) -> None:
    bad = row if isinstance(row, bytes) else row.encode()

    rows = await read(
        tmp_path, f"{HEADER}\nX,1,1,1\nY,1,1,2\n".encode() + bad + b"\nZ,1,1,3\nZ,1,2,4\nW,1,1,5\n"
    )

    assert shown(rows) == [
        (2, "X", [1]),
        (3, "Y", "Line 4 cannot be read and may belong to this order."),
        (4, None, fault),
        (5, "Z", "Line 4 cannot be read and may belong to this order."),
        (7, "W", [5]),
    ]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (["A,1,1,x"], "Line 2, qty: Input should be a valid integer."),
        (["A,1,1,1", "A,1,2,0"], "Line 3, qty: Input should be greater than or equal to 1."),
        (["A,1,1,1", "", "A,1,1.0,1"], "Line 4, product_id: Input should be a valid integer."),
        (["A,-1,1,1"], "customer_id: Input should be a valid integer."),
        (["A,1,1,1", "A,2,2,1"], "Line 3 has another customer_id than line 2."),
        (
            ["A,1,1,600000", "A,1,1,600000"],
            "items: The lines of one product should add up to at most 1000000.",
        ),
        (
            [f"A,1,{number},1" for number in range(1, 300)],
            "items: List should have at most 200 items after validation, not 201.",
        ),
    ],
)
async def test_a_csv_order_that_is_wrong_says_where(tmp_path: Path, rows: list[str], fault: str) -> None:
    found = await read(tmp_path, "\n".join([HEADER, *rows, "B,1,1,1"]))

    assert shown(found) == [(2, "A", fault), (len(rows) + 2, "B", [1])]


async def test_csv_rows_that_stand_apart_order_nothing(tmp_path: Path) -> None:
    rows = await read(tmp_path, f"{HEADER}\nA,1,1,1\nB,1,1,2\nA,1,2,3\nC,1,1,4\n")

    apart = "The rows of this reference do not stand together; none of them was ordered."
    assert shown(rows) == [(2, "A", apart), (3, "B", [2]), (4, "A", apart), (5, "C", [4])]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("reference;customer_id;qty", "the header of the CSV lacks 'product_id'"),
        (f"{HEADER},price", "the header of the CSV has unknown 'price'"),
        (f"{HEADER},qty", "the header of the CSV repeats 'qty'"),
        ("\xff\xfer\x00".encode("latin-1"), "the header of the CSV cannot be read: The line is not UTF-8."),
    ],
)
async def test_a_csv_header_must_say_what_the_columns_are(
    tmp_path: Path, header: str | bytes, fault: str
) -> None:
    content = header if isinstance(header, bytes) else f"{header}\nA;1;1;1\n"

    with pytest.raises(FileUnusable) as refused:
        await read(tmp_path, content)

    assert str(refused.value) == fault


async def test_csv_columns_stand_in_any_order_and_cells_may_be_quoted(tmp_path: Path) -> None:
    header = 'QTY; Product_Id ;purchase_order_number;customer_id;"reference"'

    rows = await read(tmp_path, f'{header}\n2;1;;1;"A;1"\n3;2;;1;"A;1"\n')

    assert shown(rows) == [(2, "A;1", [2, 3])]
    assert isinstance(rows[0], Order)
    assert rows[0].content.purchase_order_number is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "The line is no JSON: EOF while parsing an object at column 1."),
        ("[]", "Input should be a valid dictionary or instance of FileOrder."),
        (b"\xff", "The line is not UTF-8."),
        (" " * (MAX_LINE_BYTES + 1), f"The line has more than {MAX_LINE_BYTES} bytes."),
        (order("B", customer_id="1"), "customer_id: Input should be a valid integer."),
        (order(17), "reference: Input should be a valid string."),
        (order("B", price=1), "price: Extra inputs are not permitted."),
        (order("B", idempotency_key="k"), "idempotency_key: Input should be None."),
        (order("B", items=[]), "items: List should have at least 1 item after validation, not 0."),
        (order(" "), "reference: String should have at least 1 character."),
    ],
)
async def test_a_bad_json_line_says_why_and_harms_no_other(tmp_path: Path, line: Any, fault: str) -> None:
    text = line if isinstance(line, str | bytes) else json.dumps(line)
    bad = text if isinstance(text, bytes) else text.encode()

    rows = await read(
        tmp_path,
        b"\n".join([json.dumps(order("A")).encode(), bad, json.dumps(order("C")).encode()]),
        "orders.jsonl",
    )

    assert [row.line for row in rows] == [1, 2, 3]
    assert [row.reference for row in rows if isinstance(row, Order)] == ["A", "C"]
    assert [row.fault for row in rows if isinstance(row, BadRow)] == [fault]


async def test_json_lines_are_handed_on_as_they_come() -> None:
    reading, writing = os.pipe()
    second = json.dumps(order("B")).encode()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as pipe:
        rows = OrderFile(file).rows()

        pipe.write(json.dumps(order("A")).encode() + b"\n" + second[:10])
        found = [await anext(rows)]
        pipe.write(second[10:] + b"\n")
        found.append(await anext(rows))
        await rows.aclose()

    assert [row.reference for row in found] == ["A", "B"]


@pytest.mark.parametrize("form", list(Form))
async def test_a_format_that_is_told_wins(tmp_path: Path, form: Form) -> None:
    path = tmp_path / ("orders.csv" if form is Form.JSONL else "orders.jsonl")
    path.write_text(json.dumps(order("A")) if form is Form.JSONL else f"{HEADER}\nA,1,1,1")

    with path.open("rb") as file:
        rows = await rows_of(file, form)

    assert shown(rows) == [(1 if form is Form.JSONL else 2, "A", [1])]


async def test_keys_depend_on_the_reference_alone(tmp_path: Path) -> None:
    references = ["A-17", "a-17", "A 17", "x" * 251, "x" * 252, "Größe"]
    rows = await read(tmp_path, "\n".join(json.dumps(order(each)) for each in references), "orders.jsonl")

    keys = [row.key for row in rows if isinstance(row, Order)]

    assert keys[:2] == ["job:A-17", "job:a-17"]
    assert keys[3] == "job:" + "x" * 251
    assert len(set(keys)) == len(references)
    assert all(len(key) <= 255 and key.isascii() and " " not in key for key in keys)
