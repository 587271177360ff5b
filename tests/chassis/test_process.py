import asyncio
import itertools
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from customers.settings import Settings as CustomersSettings
from tests.chassis.sample import Settings, create_app
from tests.client import HOST, Client, Serve, refused
from tests.databases import TOKEN, SQLite, blocking
from tests.processes import serving, start, variables

DRAIN_SECONDS = 2
CALLERS = 8
BUSY = 5 * CALLERS  # requests before the end is asked for
AFTER_UNREADY = 5


@dataclass
class Drained:
    """What was seen of a service that was told to end under load."""

    statuses: list[int] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    unready: list[tuple[int, Any]] = field(default_factory=list)
    served_while_unready: int = 0
    closed_while_unready: int = 0
    exit_code: int | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture(scope="session")
def drained(sqlite: SQLite, tmp_path_factory: pytest.TempPathFactory) -> Drained:
    """A customers process under load that gets SIGTERM; callers stop once readiness has told them to."""
    url = sqlite.fresh(CustomersSettings, tmp_path_factory.mktemp("drained"))
    return blocking(_drain(variables(url, drain_seconds=DRAIN_SECONDS, log_format="json")))


async def _drain(given: dict[str, str]) -> Drained:
    seen = Drained()
    async with serving("customers", given) as process:
        port, admin_port = await process.ports()
        async with (
            _client(port) as kept,
            _client(port, force_close=True) as anew,
            _client(admin_port) as admin,
        ):
            callers = [
                asyncio.create_task(_call(client, f"{number}-{name}", seen))
                for number in range(CALLERS // 2)
                for name, client in (("kept", kept), ("anew", anew))
            ]
            await seen.busy.wait()
            process.terminate()
            while not seen.unready:
                reply = await admin.get("/readyz")
                if reply.status != 200:
                    seen.unready.append((reply.status, reply.json))
            seen.told.set()
            await asyncio.gather(*callers)
        seen.exit_code = await process.ended()
        seen.lines = process.lines
    return seen


@asynccontextmanager
async def _client(port: int, *, force_close: bool = False) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(session, port)


async def _call(client: Client, name: str, seen: Drained) -> None:
    """Read and write by turns; stop a few requests after the service became unready."""
    left = AFTER_UNREADY
    for number in itertools.count():
        try:
            if number % 2:
                reply = await client.get(
                    "/admin/customers/find-all?limit=5", headers={"X-Correlation-Id": name}
                )
            else:
                body = {"name": name, "email": f"{name}.{number}@example.com", "phone": "+1234567890"}
                reply = await client.post("/admin/customers/create-customer", body)
        except aiohttp.ClientError as error:
            seen.errors.append(error)
            return
        seen.statuses.append(reply.status)
        if len(seen.statuses) == BUSY:
            seen.busy.set()
        if seen.told.is_set():
            seen.served_while_unready += 1
            seen.closed_while_unready += reply.headers.get("Connection") == "close"
            left -= 1
            if left == 0:
                return


# --- the drain ----------------------------------------------------------------------------------


def test_no_request_is_lost_when_a_service_ends_under_load(drained: Drained) -> None:
    assert drained.errors == []
    assert set(drained.statuses) == {200, 201}
    assert drained.exit_code == 0


def test_a_service_that_ends_is_unready_while_it_serves_on(drained: Drained) -> None:
    assert drained.unready == [(503, {"status": "not ready", "reason": "draining"})]
    assert drained.served_while_unready == CALLERS * AFTER_UNREADY


def test_a_service_that_ends_lets_go_of_its_connections(drained: Drained) -> None:
    assert drained.closed_while_unready == drained.served_while_unready


# --- the log of a process -----------------------------------------------------------------------


def test_the_life_of_a_process_is_in_its_log(drained: Drained) -> None:
    events = [line["event"] for line in drained.lines if line["event"] != "request"]

    assert events[0].startswith("authentication is off")
    assert events[1:] == ["serving", "draining", "stopped"]


def test_every_line_of_the_log_is_json_with_the_names_of_the_service(drained: Drained) -> None:
    for line in drained.lines:
        assert line["service.name"] == "customers"
        assert line["service.version"]
        assert line["level"] in ("info", "warning")
        assert line["logger"].startswith("chassis.")
        assert line["timestamp"].endswith("Z")


def test_every_request_is_one_line_of_the_log(drained: Drained) -> None:
    lines = [line for line in drained.lines if line["event"] == "request"]

    assert len(lines) == len(drained.statuses)
    assert {line["http.route"] for line in lines} == {
        "/admin/customers/find-all",
        "/admin/customers/create-customer",
    }
    assert {line["http.response.status_code"] for line in lines} == {200, 201}
    assert {line["correlation_id"] for line in lines if line["http.request.method"] == "GET"} == {
        f"{number}-{name}" for number in range(CALLERS // 2) for name in ("kept", "anew")
    }
    assert len({line["trace_id"] for line in lines}) == len(lines)
    assert all(line["duration_ms"] > 0 for line in lines)


def test_no_person_and_no_secret_is_in_the_log(drained: Drained) -> None:
    text = str(drained.lines)

    assert "example.com" not in text
    assert "1234567890" not in text
    assert TOKEN not in text


# --- starts that fail ---------------------------------------------------------------------------


def test_a_port_that_is_taken_is_a_reason_in_one_line(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        given = variables(f"sqlite:///{tmp_path / 'x.db'}", port=port, synchronize=True)
        with start("customers", "serve", **given) as process:
            errors = process.communicate()[1].splitlines()

    assert process.returncode == 1
    assert errors[-1].startswith("customers cannot start: ")
    assert "address already in use" in errors[-1]
    assert "Traceback" not in "\n".join(errors)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_waits_for_its_database_can_be_ended(number: signal.Signals) -> None:
    given = variables("mysql://root@127.0.0.1:1/nothing", synchronize=True, log_format="json")

    with start("customers", "serve", **given) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        said = next(json.loads(line) for line in lines if "schema is not up to date" in line)
        process.send_signal(number)
        rest = [json.loads(line)["event"] for line in lines]

    assert said["error.code"] == "db.unavailable"
    assert said["reason"].startswith("no connection to mysql+asyncmy://root@127.0.0.1:1/nothing: ")
    assert rest[-2:] == ["draining", "stopped"]
    assert process.returncode == 0


# --- the server ---------------------------------------------------------------------------------


async def test_as_many_and_as_long_headers_as_allowed_are_read(client: Client) -> None:
    headers = {f"X-{number}": "x" * 1000 for number in range(50)} | {"X-Long": "x" * 8000}

    reply = await client.get("/", headers=headers)

    assert reply.status == 200


async def test_a_request_of_many_small_pieces_is_read(client: Client) -> None:
    reader, writer = await asyncio.open_connection(HOST, client.port)

    for byte in b"GET / HTTP/1.1\r\nHost: sample\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()

    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_connection_with_half_a_request_is_closed_after_a_while(
    settings: Settings, serve: Serve
) -> None:
    client = await serve(create_app(settings.model_copy(update={"keepalive_timeout": 0.1})))
    reader, writer = await asyncio.open_connection(HOST, client.port)

    writer.write(b"GET / HTTP/1.1\r\nHost: sam")

    assert await reader.read() == b""
    writer.close()


async def test_a_refusal_by_the_parser_spares_the_other_connections(client: Client) -> None:
    assert (await client.get("/")).status == 200

    refused(await client.send(b"nonsense\r\n\r\n"), 400, "request.malformed")

    assert (await client.get("/")).status == 200


async def test_requests_in_one_packet_are_answered_in_order(client: Client) -> None:
    reader, writer = await asyncio.open_connection(HOST, client.port)

    writer.write(
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    answers = (await reader.read()).decode()

    assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["404", "200"]
    writer.close()
