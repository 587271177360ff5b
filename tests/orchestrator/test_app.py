"""What the orchestrator says of itself; nobody is behind it here."""

import pytest

from chassis import __version__
from orchestrator.answers import JOB_PATH
from orchestrator.app import DESCRIPTION, create_app
from orchestrator.errors import KNOWN
from orchestrator.settings import Settings
from tests.client import Client, Serve
from tests.databases import MakeSettings
from tests.documents import ACCESS_REFUSALS, described, refusals
from tests.orchestrator.shop import Shop, ended_days_ago, until

UNKNOWN = {"customer_id": 999, "items": [{"product_id": 1, "qty": 1}]}
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def client(make_settings: MakeSettings, serve: Serve) -> Client:
    """An orchestrator whose peers nobody asks."""
    return await serve(create_app(make_settings(Settings)))


async def test_it_says_what_it_is(client: Client) -> None:
    reply = await client.get("/")

    assert reply.status == 200
    assert reply.json["name"] == "orchestrator"
    assert (reply.json["version"], reply.json["description"]) == (__version__, DESCRIPTION)


async def test_it_is_healthy_and_ready_while_its_peers_are_not_there(client: Client) -> None:
    health, ready = await client.get("/health"), await client.admin.get("/readyz")

    assert (health.status, ready.status) == (200, 200)


async def test_its_document_is_valid_and_names_every_refusal_of_the_main_job(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(Settings))

    document = await described(await serve(app), app)

    assert refusals(document, "POST", JOB_PATH) == {
        *KNOWN,
        *ACCESS_REFUSALS,
        "saga.unfinished",
        "saga.needs_attention",
        "idempotency.key_missing",
        "idempotency.key_invalid",
        "idempotency.key_reused",
        "idempotency.in_progress",
        "request.malformed",
        "request.invalid",
        "request.body_timeout",
        "request.body_too_large",
        "request.media_type_unsupported",
        "db.unavailable",
        "db.pool_exhausted",
        "db.contended",
        "db.read_only",
        "db.full",
        "db.schema_outdated",
        "db.migrating",
        "db.migration_failed",
        "internal.error",
    }
    assert refusals(document, "POST", "/orchestrator/sagas/{saga_id}/retry") >= {
        "saga.not_found",
        "saga.not_retryable",
    }


async def test_it_forgets_old_sagas_by_itself(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.app.PURGE_SECONDS", 0.02)
    orchestrator = await shop.replica(saga_days=30)
    saga_id = (await orchestrator.job(UNKNOWN)).json["saga_id"]

    await ended_days_ago(orchestrator.database, saga_id, 31)

    async def is_gone() -> bool:
        return (await orchestrator.client.get(f"/orchestrator/sagas/{saga_id}")).status == 404

    await until(is_gone)
