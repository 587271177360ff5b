"""Fixtures of all tests.

A test that names `make_settings`, `database_url` or `databases` runs twice, on SQLite and on MariaDB.
MariaDB is the server of TEST_DATABASE_URL, in schemas that the tests create and drop, or else a
private one of this process of the tests that lives as long as it does.
"""

import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import pytest
import uvloop
from sqlalchemy.engine import URL

from chassis import __version__
from chassis.settings import Settings, parse_database_url
from chassis.telemetry import logs, traces
from dev.mariadb import private_server

# A shell starts its background jobs with SIGINT ignored, and so would be every process of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("tests.client", "tests.orchestrator.shop", "tests.orchestrator.job.system")

from tests.client import Serve  # noqa: E402 - after the line above
from tests.databases import Databases, DatabaseUrl, MakeSettings, MariaDB, S, SQLite, on_database  # noqa: E402 - as above
from tests.issuer import Issuer, open_issuer  # noqa: E402 - as above
from tests.observed import LogLines  # noqa: E402 - as above
from tests.serving import sockets  # noqa: E402 - as above

MOST_WORKERS = 8  # each has a MariaDB of its own


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    """Run the tests on the event loop of the services."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` means: none for a file or a few tests, which end sooner without.

    More than cores: more than half of its time a test waits, for a process to start, for a COMMIT to reach
    the disk, for a deadline to pass.
    """
    narrow = config.option.keyword or not all(Path(argument).is_dir() for argument in config.args)
    return 0 if narrow else max(2, min((os.cpu_count() or 1) * 3 // 2, MOST_WORKERS))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep groups together: pytest-xdist 3.8 adds them to ids where pytest 9.2 does not look (#1386)."""
    for item in items if getattr(config.option, "loadgroup", False) else ():
        marker = item.get_closest_marker("xdist_group")
        if marker is not None and not item.nodeid.endswith(suffix := f"@{marker.args[0]}"):
            item._id = item.id.parse(item.nodeid + suffix)  # noqa: SLF001 - as pytest-xdist will have to


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts that tests recorded: how many schedules or steps they tried."""
    counted = [
        (report.nodeid, name, value)
        for report in terminalreporter.getreports("")  # where pytest puts the reports of fixtures
        for name, value in report.user_properties
        if report.when == "teardown"
    ]
    if counted:
        terminalreporter.section("counts")
    for test, name, value in counted:
        terminalreporter.write_line(f"{test}: {value} {name}")


@pytest.fixture(scope="session", autouse=True)
def log_handler() -> "logging.StreamHandler[TextIO]":
    """Telemetry as in a process: requests have trace ids, failed tests show what was logged."""
    logs.set_up("tests", __version__, "info", "json")
    traces.set_up("tests", __version__)
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    return handler


@pytest.fixture
def log_lines(log_handler: "logging.StreamHandler[TextIO]") -> Iterator[LogLines]:
    """See LogLines."""
    written = StringIO()
    usual = log_handler.setStream(written)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    assert usual is not None
    log_handler.setStream(usual)


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> SQLite:
    """Where SQLite files come from."""
    return SQLite(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[URL]:
    """The MariaDB of this session."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield parse_database_url(given)
        return
    with TemporaryDirectory(prefix="b2b-mariadb-") as folder, private_server(Path(folder)) as server:
        yield parse_database_url(server.url(""))


@pytest.fixture(scope="session")
def mariadb(mariadb_server: URL) -> Iterator[MariaDB]:
    """Where MariaDB schemas come from."""
    schemas = MariaDB(mariadb_server)
    yield schemas
    schemas.close()


@pytest.fixture(params=["sqlite", "mariadb"])
def backend(request: pytest.FixtureRequest) -> str:
    """The database of this run; a test of one only says so by `parametrize(..., indirect=True)`."""
    return str(request.param)


@pytest.fixture
def databases(backend: str, request: pytest.FixtureRequest) -> Databases:
    """Where databases of this run come from."""
    found: Databases = request.getfixturevalue(backend)
    return found


@pytest.fixture
def database_url(databases: Databases, tmp_path: Path) -> DatabaseUrl:
    """See DatabaseUrl."""
    urls: dict[str, str] = {}

    def url(settings_class: type[Settings]) -> str:
        if settings_class.service not in urls:
            urls[settings_class.service] = databases.fresh(settings_class, tmp_path)
        return urls[settings_class.service]

    return url


@pytest.fixture
def make_settings(database_url: DatabaseUrl) -> MakeSettings:
    """See MakeSettings."""

    def make(settings_class: type[S], **overrides: Any) -> S:
        return settings_class(**{**on_database(database_url(settings_class)), **overrides})

    return make


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """See Serve."""
    async with sockets() as start:
        yield start


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """See Issuer."""
    async with open_issuer() as opened:
        yield opened
