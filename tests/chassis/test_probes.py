import asyncio
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import customers.app
import customers.settings
from chassis import migrations, probes
from chassis.database import DATABASE
from chassis.lifecycle import LIFECYCLE
from tests.chassis.sample import Settings, create_app
from tests.client import Client, Serve, refused
from tests.databases import Databases, MakeSettings, execute, on_database
from tests.observed import LogLines, Sample, statements_sent


@pytest.fixture
async def _always_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readiness forget what it knows at once."""
    monkeypatch.setattr(probes, "CHECK_EVERY_SECONDS", -1)


async def test_a_service_that_serves_is_alive_started_and_ready(
    make_settings: MakeSettings, serve: Serve
) -> None:
    client = await serve(customers.app.create_app(make_settings(customers.settings.Settings)))

    replies = [await client.admin.get(path) for path in ("/livez", "/startupz", "/readyz")]

    assert [reply.status for reply in replies] == [200, 200, 200]
    assert replies[2].json == {"status": "ready"}
    assert Sample("b2b_ready").value == 1


@pytest.mark.usefixtures("_always_asks")
async def test_a_service_is_ready_once_its_migrations_are_there(
    databases: Databases, tmp_path: Path, serve: Serve, log_lines: LogLines
) -> None:
    url = databases.empty(tmp_path)
    settings = customers.settings.Settings(**on_database(url))
    client = await serve(customers.app.create_app(settings))

    before = await client.admin.get("/readyz")
    await migrations.upgrade(settings)
    after = await client.admin.get("/readyz")
    execute(url, "UPDATE customers_alembic_version SET version_num = '9999'")
    below_a_newer_release = await client.admin.get("/readyz")
    execute(url, "DELETE FROM customers_alembic_version")  # the tables are there, not all of a migration is
    interrupted = await client.admin.get("/readyz")

    said = next(line for line in log_lines() if line["event"] == "not ready")
    assert (said["wanted"], said["command"]) == (migrations.head("customers"), "python -m customers migrate")
    assert (before.status, before.json["reason"]) == (503, "db.schema_outdated")
    assert (after.status, below_a_newer_release.status) == (200, 200)
    assert (interrupted.status, interrupted.json["reason"]) == (503, "db.schema_outdated")


async def test_a_service_that_is_not_started_is_alive_but_not_ready(
    client: Client, settings: Settings
) -> None:
    app = create_app(settings)
    readiness = probes.Readiness(app)

    assert await readiness.reason_against() == "starting"
    assert (await client.admin.get("/livez")).status == 200
    await app[DATABASE].close()


async def test_a_draining_service_is_alive_but_not_ready_and_serves_on(
    settings: Settings, serve: Serve
) -> None:
    app = create_app(settings)
    client = await serve(app)

    app[LIFECYCLE].drain()

    ready = await client.admin.get("/readyz")
    assert (ready.status, ready.json) == (503, {"status": "not ready", "reason": "draining"})
    assert (await client.admin.get("/livez")).status == 200
    served = await client.get("/")
    assert (served.status, served.headers["Connection"]) == (200, "close")
    assert Sample("b2b_draining").value == 1


@pytest.mark.usefixtures("_always_asks")
async def test_a_service_without_its_database_is_alive_but_not_ready(serve: Serve) -> None:
    unreachable = Settings(
        database_url="mysql://root@127.0.0.1:1/nothing", auth="off", service_token="own", synchronize=False
    )
    client = await serve(create_app(unreachable))

    ready = await client.admin.get("/readyz")

    assert (ready.status, ready.json) == (503, {"status": "not ready", "reason": "db.unavailable"})
    assert (await client.admin.get("/livez")).status == 200
    assert Sample("b2b_ready").value == 0


@pytest.mark.usefixtures("_always_asks")
async def test_a_service_whose_pool_is_exhausted_stays_ready(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(customers.settings.Settings, db_pool_size=1, db_pool_timeout=0.05)
    app = customers.app.create_app(settings)
    client = await serve(app)

    async with app[DATABASE].read() as session:
        await session.connection()
        served = await client.get("/admin/customers/find-all")
        ready = await client.admin.get("/readyz")

    refused(served, 503, "db.pool_exhausted")
    assert (ready.status, ready.json) == (200, {"status": "ready"})


async def test_probes_at_once_ask_the_database_once(make_settings: MakeSettings, serve: Serve) -> None:
    app = customers.app.create_app(make_settings(customers.settings.Settings))
    client = await serve(app)

    with statements_sent(app[DATABASE]) as statements:
        replies = await asyncio.gather(*(client.admin.get("/readyz") for _ in range(20)))

    assert {reply.status for reply in replies} == {200}
    assert 1 <= len(statements) <= 2  # the check, and one more if a second has passed


async def test_probes_and_metrics_are_not_counted_as_requests(client: Client) -> None:
    def counted() -> float:
        lines = metrics.text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("http_server_request_duration_seconds_count")
        )

    metrics = await client.admin.get("/metrics")
    before = counted()
    for path in ("/livez", "/readyz", "/startupz", "/metrics"):
        metrics = await client.admin.get(path)

    assert counted() == before


async def test_metrics_speak_openmetrics_to_those_who_do(client: Client) -> None:
    plain = await client.admin.get("/metrics")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    open_metrics = await client.admin.get("/metrics", headers=accept)

    assert plain.headers["Content-Type"].startswith("text/plain")
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name for family in text_string_to_metric_families(open_metrics.text)}  # type: ignore[no-untyped-call]  # as the package ships it
    assert {
        "http_server_request_duration_seconds",
        "http_server_active_requests",
        "db_client_operation_duration_seconds",
        "b2b_transaction_retries",
        "b2b_idempotency",
        "b2b_ready",
        "b2b_draining",
        "b2b_build_info",
    } <= families


async def test_label_sets_exist_from_zero(client: Client) -> None:
    text = (await client.admin.get("/metrics")).text

    for error in ("deadlock", "lock_timeout"):
        assert f'b2b_transaction_retries_total{{error="{error}"}}' in text
    for result in ("executed", "refused", "replayed", "reused", "in_progress"):
        assert f'b2b_idempotency_total{{result="{result}",service="sample"}}' in text


async def test_the_admin_port_has_nothing_of_the_public_one(client: Client) -> None:
    assert (await client.admin.get("/counters")).status == 404
    assert (await client.get("/metrics")).status == 404
    assert (await client.get("/livez")).status == 404
