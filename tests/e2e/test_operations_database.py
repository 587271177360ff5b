"""What docs/operations.md says about the database is done: a password is rotated, a backup restored.

Real processes, a real MariaDB, users with no more rights than the document gives them.
"""

import asyncio
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

import aiohttp
import pytest
from sqlalchemy.engine import URL

from dev.debian import program, unpacked
from dev.stack import Stack, stack
from tests.client import Client, Reply
from tests.e2e.operations import commands, section, statements
from tests.orchestrator.shop import Catalog, Orchestrator, until
from tests.processes import serving, variables

CLIENTS = 4
BEFORE, AFTER = 4, 8
"""Orders that are made before the dump, and after it."""
STOCK = 100_000
SETTINGS = {
    "SERVICE_TOKEN": "the-token-of-the-tests",
    "SYNCHRONIZE": "true",
    "PEER_TIMEOUT": "1",
    "PEER_DEADLINE": "1",
    "SAGA_LEASE": "2.5",
    "SWEEP_EVERY": "0.2",
}


@dataclass(frozen=True)
class Console:
    """What a person with the rights of an administrator does on the server, with names of this test."""

    server: URL
    suffix: str = field(default_factory=lambda: f"_{token_hex(4)}")

    @property
    def _names(self) -> dict[str, str]:
        names = ("b2b_restored", "b2b_1", "b2b_2", "b2b")  # longer ones first
        return {name: name + self.suffix for name in names}

    def own(self, text: str) -> str:
        """The text of the document with the names of this test."""
        for name, own in self._names.items():
            for before, after in ((" ", "."), (" ", " "), ("'", "'")):
                text = text.replace(f"{before}{name}{after}", f"{before}{own}{after}")
        return text

    def url(self, user: str, password: str, schema: str) -> str:
        """The address of a schema for a user of the document."""
        named = self.server.set(username=user + self.suffix, password=password, database=schema + self.suffix)
        return named.render_as_string(hide_password=False)

    def sql(self, *given: str) -> None:
        """Execute statements of the document."""
        for statement in given:
            self.run(program("mariadb"), "-e", self.own(statement))

    def run(self, path: str, *arguments: str, **options: Any) -> None:
        """Run a program of the server's client."""
        where = (f"--host={self.server.host}", f"--port={self.server.port}", f"--user={self.server.username}")
        environment = {**os.environ, "MYSQL_PWD": self.server.password or ""}
        subprocess.run(  # noqa: S603 - the document's own commands
            (path, "--no-defaults", "--protocol=tcp", *where, *arguments),
            env=environment,
            check=True,
            **options,
        )


@pytest.fixture
def console(mariadb_server: URL) -> Iterator[Console]:
    made = Console(mariadb_server)
    yield made
    made.sql("DROP DATABASE IF EXISTS b2b ", "DROP DATABASE IF EXISTS b2b_restored ")
    made.sql("DROP USER IF EXISTS 'b2b_1'@'%'", "DROP USER IF EXISTS 'b2b_2'@'%'")


@asynccontextmanager
async def _services(url: str, folder: Path) -> AsyncIterator[tuple[Stack, Catalog, Orchestrator]]:
    urls = dict.fromkeys(("customers", "orders", "orchestrator"), url)
    async with (
        stack(folder, database_urls=urls, environment=SETTINGS) as services,
        aiohttp.ClientSession() as http,
    ):
        first, second, third = (Client(http, service.port) for service in services)
        yield services, Catalog(first, second), Orchestrator(third)


class Callers:
    """Clients that order one thing after the other, each with its key until it is answered with 201.

    `answers` are the bytes that they were told, by key, in their order.
    """

    def __init__(self, front: Orchestrator, body: dict[str, Any]) -> None:
        self.answers: dict[str, Reply] = {}
        self.sent: list[str] = []
        self._front, self._body = front, body
        self._numbers = count()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CLIENTS)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def more(self, number: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + number
        await until(lambda: _true(len(self.answers) >= wanted))

    async def _call(self) -> None:
        while True:
            key = f"order-{next(self._numbers)}"
            self.sent.append(key)
            self.answers[key] = await until(partial(self._made, key))

    async def _made(self, key: str) -> Reply | None:
        reply = await self._front.job(self._body, key=key)
        return reply if reply.status == 201 else None


async def _true(value: object) -> object:
    return value


def _number(reply: Reply) -> str:
    return str(reply.json["data"]["order"]["order_number"])


async def _running(front: Orchestrator) -> int:
    reply = await front.client.get("/orchestrator/sagas", params={"status": "RUNNING", "limit": 100})
    return len(reply.json["data"])


async def test_a_backup_taken_under_load_is_restored_and_what_is_repeated_is_made_once(
    console: Console, tmp_path: Path
) -> None:
    dump, load = _dump_and_load(console, tmp_path / "backup.sql")
    console.sql(*statements("Install"))
    rotation, restore = statements("Rotate the database password"), statements("Back up and restore")
    console.sql(*rotation[:2])
    async with _services(console.url("b2b_1", "first-password", "b2b"), tmp_path / "before") as running:
        services, catalog, front = running
        body = await catalog.basket(qty=1, stock=STOCK)
        callers = Callers(front, body)
        callers.start()
        await callers.more(BEFORE)
        services.orders.pause()  # so that there are sagas under way
        await until(lambda: _running(front))
        finished = dict(callers.answers)
        await asyncio.to_thread(dump)
        under_way = set(callers.sent) - set(finished)
        services.orders.resume()
        await callers.more(AFTER)
        await callers.stop()
        told = dict(callers.answers)
    lost = set(told) - set(finished) - under_way
    assert len(finished) >= BEFORE
    assert under_way
    assert lost

    console.sql(*restore[:2])
    load()
    console.sql(*restore[2:])

    url = console.url("b2b_2", "second-password", "b2b_restored")
    async with _services(url, tmp_path / "after") as running:
        services, catalog, front = running
        await until(lambda: _none_running(front))
        assert (await services.orders.command("reconcile")).returncode == 0
        made = await _orders(catalog)
        assert made.keys() >= {_number(reply) for reply in finished.values()}
        assert not made.keys() & {_number(told[key]) for key in lost}, "gone, and nobody has their numbers"

        again = {key: await front.job(body, key=key) for key in callers.sent}

        assert {reply.status for reply in again.values()} == {201}
        for key, reply in finished.items():
            assert again[key].body == reply.body
            assert again[key].headers["Idempotent-Replayed"] == "true"
        handed_out = {_number(reply) for reply in told.values()}
        assert not handed_out & {_number(again[key]) for key in lost}, "no number is another order's"
        made = await _orders(catalog)
        assert set(made.values()) == {"CONFIRMED"}
        assert len(made) == len(callers.sent), "one order for each key"
        product = (await catalog.orders.get("/admin/products/find-all")).json["data"][0]
        assert (product["stock"], product["reserved"]) == (STOCK - len(callers.sent), 0)
        assert (await services.orders.command("reconcile")).returncode == 0


def _dump_and_load(console: Console, file: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """The document's two commands that write and read a backup."""
    found = {words[0]: words[1:] for words in commands(section("Back up and restore"))}
    dumps, loads = found["mariadb-dump"], found["mariadb"]
    assert dumps[-2] == ">"
    assert loads[-2] == "<"
    client = unpacked("mariadb-client") / "usr" / "bin" / "mariadb-dump"

    def dump() -> None:
        with file.open("wb") as written:
            console.run(str(client), *dumps[:-3], dumps[-3] + console.suffix, stdout=written)

    def load() -> None:
        with file.open("rb") as read:
            console.run(program("mariadb"), loads[0] + console.suffix, stdin=read)

    return dump, load


async def _none_running(front: Orchestrator) -> bool:
    return await _running(front) == 0


async def _orders(catalog: Catalog) -> dict[str, str]:
    """The status of every order, by its number."""
    found: dict[str, str] = {}
    cursor: dict[str, str] = {}
    while True:
        reply = await catalog.orders.get("/admin/orders/find-all", params={"limit": "100", **cursor})
        found |= {order["order_number"]: order["status"] for order in reply.json["data"]}
        if not reply.json["meta"]["has_next"]:
            return found
        cursor = {"cursor": reply.json["meta"]["next_cursor"]}


async def test_a_password_is_rotated_by_a_second_user_while_both_kinds_of_pods_serve(
    console: Console,
) -> None:
    console.sql(*statements("Install"))
    *beside, last = statements("Rotate the database password")
    first = variables(console.url("b2b_1", "first-password", "b2b"), synchronize=True)
    second = variables(console.url("b2b_2", "second-password", "b2b"))
    async with (
        serving("customers", first) as old,
        aiohttp.ClientSession() as http,
        AsyncExitStack() as later,
    ):
        console.sql(*beside)
        new = await later.enter_async_context(serving("customers", second))
        before, after = [Client(http, (await each.ports())[0]) for each in (old, new)]
        await until(lambda: _is_ready(before))
        await until(lambda: _is_ready(after))
        assert await Catalog(before, before).customer()

        old.terminate()
        assert await old.ended() == 0
        console.sql(last)

        asked = [Catalog(after, after).customer(email=f"new-{number}@acme.com") for number in range(20)]
        assert len(await asyncio.gather(*asked)) == 20, "more at once than it has connections so far"


async def _is_ready(client: Client) -> bool:
    return (await client.get("/health")).status == 200


def test_the_examples_of_the_document_name_the_same_users_and_passwords() -> None:
    sql = " ".join(statements("Install") + statements("Rotate the database password"))
    addresses = [
        word
        for title in ("Install", "Rotate the database password", "Back up and restore")
        for line in commands(section(title))
        for word in shlex.split(line[-1].translate(str.maketrans('{}",', "    "))) + line
        if word.startswith("mysql://")
    ]

    assert len(addresses) == 2
    for address in addresses:
        user, _, password = address.removeprefix("mysql://").partition("@")[0].partition(":")
        assert f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'" in sql
