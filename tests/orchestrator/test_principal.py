"""In whose name sagas act: that of their caller, at orders too, whoever drives them and however often."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from chassis.database import Database
from orchestrator.answers import JOB_PATH
from tests.client import Client, Reply, Serve, refused
from tests.databases import TOKEN, MakeSettings
from tests.issuer import ISSUER, Issuer
from tests.observed import LogLines
from tests.orchestrator.shop import Orchestrator, Replica, Shop, open_shop
from tests.orchestrator.wire import after, loses_the_answer

ALICE = f"{ISSUER} alice"
ALL = " ".join(
    f"{resource}:{right}"
    for resource in ("customers", "products", "orders", "sagas")
    for right in ("read", "write")
)


class Bearing(Client):
    """A client whose every request carries a token."""

    def __init__(self, client: Client, issuer: Issuer, **claims: Any) -> None:
        super().__init__(client._session, client.port)  # noqa: SLF001 - the same one, with a token
        self._bearer = issuer.bearer(ALL, **claims)

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        headers = self._bearer | options.pop("headers", {})
        return await super().request(method, path, headers=headers, **options)


@pytest.fixture
async def shop(make_settings: MakeSettings, serve: Serve, issuer: Issuer) -> AsyncIterator[Shop]:
    """Three services that know nobody but the issuer's subjects; the catalog is kept by `clerk`."""

    def secured(settings_class: Any, **given: Any) -> Any:
        return make_settings(settings_class, **issuer.settings(**given))

    async with open_shop(secured, serve) as opened:
        opened.customers = Bearing(opened.customers, issuer, sub="clerk")
        opened.orders = Bearing(opened.orders, issuer, sub="clerk")
        yield opened


@pytest.fixture
async def replica(shop: Shop) -> Replica:
    return await shop.replica()


def _as(replica: Replica, issuer: Issuer, **claims: Any) -> Orchestrator:
    return Orchestrator(Bearing(replica.client, issuer, **claims))


async def _history(shop: Shop, order_id: int) -> list[tuple[str, str]]:
    order = (await shop.orders.get(f"/admin/orders/find-one/{order_id}")).json["data"]
    return [(event["to_status"], event["principal"]) for event in order["history"]]


async def test_an_order_is_made_in_the_name_of_who_asked_for_it(
    shop: Shop, replica: Replica, issuer: Issuer, log_lines: LogLines
) -> None:
    alice = _as(replica, issuer)

    reply = await alice.job(await shop.basket(), "k-1")

    assert reply.status == 201, reply.text
    assert (await alice.only_saga())["principal"] == ALICE
    order_id = reply.json["data"]["order"]["id"]
    assert await _history(shop, order_id) == [("CREATED", ALICE), ("CONFIRMED", ALICE)]
    await shop.cancel(order_id)
    assert (await _history(shop, order_id))[-1] == ("CANCELED", f"{ISSUER} clerk")
    assert "alice" not in str(log_lines())


async def test_a_saga_that_the_sweeper_resumes_acts_in_the_name_of_its_caller(
    shop: Shop, issuer: Issuer
) -> None:
    first = await shop.replica(peer_deadline=0.1)
    body = await shop.basket()
    shop.to_orders.down = True
    saga_id = (await _as(first, issuer).job(body, "k-1")).json["saga_id"]
    shop.to_orders.down = False
    await first.lease_runs_out(saga_id)
    second = await shop.replica()

    await second.driver.sweep()

    saga = await _as(second, issuer, sub="clerk").ended(saga_id)
    assert (saga["status"], saga["principal"]) == ("SUCCEEDED", ALICE)
    assert await _history(shop, saga["order"]["id"]) == [("CREATED", ALICE), ("CONFIRMED", ALICE)]


async def test_a_step_that_is_done_twice_is_one_step_of_the_same_principal(
    shop: Shop, issuer: Issuer
) -> None:
    """With another principal, the key of the step would be another one, and there would be two orders."""
    replica = await shop.replica()
    shop.to_orders.breaks("/create-order", loses_the_answer)

    reply = await _as(replica, issuer).job(await shop.basket(), "k-1")

    assert reply.status == 201, reply.text
    assert len(await shop.all_orders()) == 1


async def test_an_order_that_is_confirmed_already_is_not_canceled_for_it(
    shop: Shop, replica: Replica, issuer: Issuer
) -> None:
    """The saga looks at the order with the service token; refused, it would never end."""
    body = await shop.basket()
    shop.to_orders.breaks("/confirm", after(shop.confirm))

    reply = await _as(replica, issuer).job(body, "k-1")

    assert reply.status == 201, reply.text
    order_id = reply.json["data"]["order"]["id"]
    assert await _history(shop, order_id) == [("CREATED", ALICE), ("CONFIRMED", f"{ISSUER} clerk")]
    assert await shop.stock(body) == (8, 0)


async def test_one_key_of_two_principals_makes_two_orders(
    shop: Shop, replica: Replica, issuer: Issuer
) -> None:
    body = await shop.basket(qty=1)
    alice, bob = _as(replica, issuer), _as(replica, issuer, sub="bob")

    replies = [await who.job(body, "k-1") for who in (alice, bob, alice)]

    assert [reply.status for reply in replies] == [201] * 3
    assert [reply.headers.get("Idempotent-Replayed") for reply in replies] == [None, None, "true"]
    assert replies[2].body == replies[0].body
    assert len(await shop.all_orders()) == 2


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ("none", 401, "auth.token_missing"),
        ("reader", 403, "auth.scope_missing"),
        ("peer", 401, "auth.token_invalid"),
    ],
)
async def test_the_main_job_takes_nothing_but_a_token_with_its_scope(  # noqa: PLR0917 - cases and fixtures
    shop: Shop, replica: Replica, issuer: Issuer, headers: str, status: int, code: str
) -> None:
    given = {
        "none": {},
        "reader": issuer.bearer("sagas:read orders:write"),
        "peer": {"Authorization": f"Bearer {TOKEN}"},
    }[headers]
    body = await shop.basket()
    assert (await _as(replica, issuer).job(body, "k-1")).status == 201

    for key in ("k-1", "k-2"):
        reply = await replica.client.post(JOB_PATH, body, headers={"Idempotency-Key": key, **given})
        members = ("scope",) if status == 403 else ()
        refused(reply, status, code, "success", "step", "compensated", "retry_needs_new_key", *members)
    assert len(await shop.all_orders()) == 1


async def test_a_saga_of_before_there_was_authentication_goes_on_as_nobody(
    shop: Shop, issuer: Issuer
) -> None:
    first = await shop.replica(peer_deadline=0.1, auth="off")
    body = await shop.basket()
    shop.to_orders.down = True
    saga_id = (await first.job(body, "k-1")).json["saga_id"]
    shop.to_orders.down = False
    await _forget_principal(first.database)
    await first.lease_runs_out(saga_id)
    second = await shop.replica()

    await second.driver.sweep()

    saga = await _as(second, issuer).ended(saga_id)
    assert (saga["status"], saga["principal"]) == ("SUCCEEDED", "anonymous")
    assert await _history(shop, saga["order"]["id"]) == [("CREATED", "anonymous"), ("CONFIRMED", "anonymous")]


async def _forget_principal(database: Database) -> None:
    """Make the rows what the release without principals would have written."""
    await database.transact(lambda session: session.execute(text("UPDATE sagas SET principal = NULL")))
