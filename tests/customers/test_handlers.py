import asyncio
import re
from typing import Any

import pytest
from aiohttp import web

from chassis.database import DATABASE
from tests.client import Client, refused
from tests.customers.calls import ACME, PEER, PREFIX, change, create, created, delete, find, get, names
from tests.observed import statements_sent

NOBODY = 2**63 - 1
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"

# --- create -------------------------------------------------------------------------------------


async def test_a_customer_is_created_and_found_at_its_location(client: Client) -> None:
    reply = await create(client)

    customer = reply.json["data"]
    assert reply.status == 201
    assert reply.headers["Location"] == f"{PREFIX}/find-one/{customer['id']}"
    assert reply.headers["ETag"] == '"1"'
    assert {**customer, **ACME, "is_active": True} == customer
    assert set(customer) == {*ACME, "id", "is_active", "created_at", "updated_at"}
    assert re.fullmatch(MOMENT, customer["created_at"])
    assert customer["updated_at"] == customer["created_at"]
    found = await client.get(reply.headers["Location"])
    assert (found.status, found.body) == (200, reply.body)


async def test_a_customer_needs_no_phone(client: Client) -> None:
    reply = await client.post(f"{PREFIX}/create-customer", {"name": "ACME", "email": "ops@acme.example.com"})

    assert (reply.status, reply.json["data"]["phone"]) == (201, None)


@pytest.mark.parametrize(
    "name", ["株式会社 🦄", "e\u0301 is not é", "a\x00b", "two\nlines", "'; --", "x" * 200, "🦄" * 200]
)
async def test_a_name_is_kept_as_it_is(client: Client, name: str) -> None:
    customer = await created(client, name=name)

    assert (await get(client, customer["id"])).json["data"]["name"] == name


async def test_an_email_is_stored_in_its_normal_form(client: Client) -> None:
    customer = await created(client, email="Ops@ACME.Example.COM")

    assert customer["email"] == "ops@acme.example.com"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ops@acme.example.com", "ops@acme.example.com"),
        ("ops@acme.example.com", "OPS@acme.EXAMPLE.com"),
        ("ops@bücher.example.com", "ops@xn--bcher-kva.example.com"),
        ("josé@acme.example.com", "jose\u0301@acme.example.com"),
    ],
)
async def test_an_email_that_another_customer_has_is_refused(client: Client, first: str, second: str) -> None:
    await created(client, email=first)

    reply = await create(client, email=second)

    refused(reply, 409, "customer.email_taken")
    assert len((await find(client)).json["data"]) == 1


@pytest.mark.parametrize("other", ["josè@acme.example.com", "jose@acme.example.com", "jos@acme.example.com"])
async def test_emails_that_look_alike_are_different(client: Client, other: str) -> None:
    await created(client, email="josé@acme.example.com")

    assert (await created(client, email=other))["email"] == other


async def test_of_many_creates_of_one_email_at_once_one_succeeds(client: Client) -> None:
    replies = await asyncio.gather(*(create(client, name=f"ACME {number}") for number in range(20)))

    statuses = sorted(reply.status for reply in replies)
    assert statuses == [201] + [409] * 19
    for reply in replies:
        if reply.status == 409:
            refused(reply, 409, "customer.email_taken")
    [winner] = [reply.json["data"]["name"] for reply in replies if reply.status == 201]
    assert await names(client) == [winner]


@pytest.mark.parametrize("field", ["id", "is_active", "version", "created_at", "nickname"])
async def test_what_the_client_must_not_set_is_refused(client: Client, field: str) -> None:
    reply = await create(client, **{field: 1})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [f"#/{field}"]


async def test_everything_wrong_with_a_customer_is_listed_at_once(client: Client) -> None:
    reply = await client.post(
        f"{PREFIX}/create-customer", {"name": " ", "email": "nobody", "phone": 5, "id": 1}
    )

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["#/name", "#/email", "#/phone", "#/id"]


# --- read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["find-one", "internal/customers"])
async def test_a_customer_that_does_not_exist_is_not_found(client: Client, path: str) -> None:
    reply = await client.get(f"{PREFIX}/{path}/{NOBODY}", headers=PEER)

    refused(reply, 404, "customer.not_found")


async def test_a_customer_that_did_not_change_is_not_sent_again(client: Client) -> None:
    customer = await created(client)
    first = await get(client, customer["id"])

    again = await get(client, customer["id"], **{"If-None-Match": first.headers["ETag"]})
    await change(client, customer["id"], name="New")
    changed = await get(client, customer["id"], **{"If-None-Match": first.headers["ETag"]})

    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')


async def test_customers_are_listed_newest_first(client: Client) -> None:
    for number in range(3):
        await created(client, name=f"Customer {number}", email=f"c{number}@example.com")

    reply = await find(client)

    assert [customer["name"] for customer in reply.json["data"]] == ["Customer 2", "Customer 1", "Customer 0"]
    assert reply.json["meta"] == {"limit": 20, "next_cursor": None, "has_next": False}


async def test_no_customers_are_an_empty_page(client: Client) -> None:
    reply = await find(client)

    assert reply.json == {"data": [], "meta": {"limit": 20, "next_cursor": None, "has_next": False}}


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("acme", ["ACME 100%", "acme_sub"]),
        ("100%", ["ACME 100%"]),
        ("%", ["ACME 100%"]),
        ("_", ["acme_sub"]),
        ("globex.example", ["Globex"]),
        ("OPS@Globex", ["Globex"]),
        ("555", ["Globex"]),
        ("\\", []),
        ("' OR '1'='1", []),
    ],
)
async def test_a_search_looks_in_name_email_and_phone(client: Client, search: str, found: list[str]) -> None:
    await created(client, name="Globex", email="ops@globex.example.com", phone="+555 00 11")
    await created(client, name="acme_sub", email="a@example.com", phone=None)
    await created(client, name="ACME 100%", email="b@example.com", phone="+1234567890")

    assert await names(client, search=search) == found


async def test_filters_are_anded(client: Client) -> None:
    gone = await created(client, name="ACME gone", email="a@example.com")
    await created(client, name="ACME", email="b@example.com")
    await created(client, name="Globex", email="c@example.com")
    await delete(client, gone["id"])

    assert await names(client, search="acme", is_active="true") == ["ACME"]
    assert await names(client, search="acme", is_active="false") == ["ACME gone"]
    assert await names(client, is_active="true") == ["Globex", "ACME"]


async def test_a_cursor_goes_on_with_its_filters_and_no_others(client: Client) -> None:
    for number in range(5):
        await created(client, name=f"ACME {number}", email=f"c{number}@example.com")

    first = (await find(client, search="acme", limit=2)).json
    cursor = first["meta"]["next_cursor"]
    await created(client, name="ACME new", email="new@example.com")

    assert await names(client, search="acme", limit=2, cursor=cursor) == ["ACME 2", "ACME 1"]
    refused(await find(client, search="globex", limit=2, cursor=cursor), 400, "request.invalid")


# --- change -------------------------------------------------------------------------------------


async def test_only_the_given_fields_change(client: Client) -> None:
    customer = await created(client)

    reply = await change(client, customer["id"], name="ACME Inc.")

    changed = reply.json["data"]
    assert (reply.status, reply.headers["ETag"]) == (200, '"2"')
    assert {**customer, "name": "ACME Inc.", "updated_at": changed["updated_at"]} == changed
    assert (await get(client, customer["id"])).body == reply.body


async def test_a_phone_can_be_taken_away_and_a_name_cannot(client: Client) -> None:
    customer = await created(client)

    without_phone = await change(client, customer["id"], phone=None)
    without_name = await change(client, customer["id"], name=None)

    assert without_phone.json["data"]["phone"] is None
    refused(without_name, 400, "request.invalid")


@pytest.mark.parametrize("fields", [{}, {"id": 7}, {"version": 7}, {"email": "nobody"}, {"is_active": "no"}])
async def test_a_change_that_is_none_or_not_allowed_is_refused(
    client: Client, fields: dict[str, Any]
) -> None:
    customer = await created(client)

    reply = await change(client, customer["id"], **fields)

    refused(reply, 400, "request.invalid")
    assert (await get(client, customer["id"])).json["data"] == customer


async def test_a_change_to_an_email_that_another_customer_has_is_refused(client: Client) -> None:
    customer = await created(client)
    await created(client, email="taken@example.com")

    reply = await change(client, customer["id"], email="Taken@example.com", name="New")

    refused(reply, 409, "customer.email_taken")
    assert (await get(client, customer["id"])).json["data"] == customer


async def test_a_change_of_the_current_version_is_made_and_of_another_refused(client: Client) -> None:
    customer = await created(client)

    first = await change(client, customer["id"], '"1"', name="First")
    late = await change(client, customer["id"], '"1"', name="Late")
    any_version = await change(client, customer["id"], "*", name="Any")
    either = await change(client, customer["id"], '"1", "3"', name="Either")
    weak = await change(client, customer["id"], 'W/"4"', name="Weak")

    assert [reply.status for reply in (first, any_version, either)] == [200, 200, 200]
    refused(late, 412, "resource.version_mismatch")
    refused(weak, 412, "resource.version_mismatch")
    assert (await get(client, customer["id"])).json["data"]["name"] == "Either"


async def test_of_many_changes_of_one_version_at_once_one_is_made(client: Client) -> None:
    customer = await created(client)

    replies = await asyncio.gather(
        *(change(client, customer["id"], '"1"', name=f"Name {number}") for number in range(20))
    )

    statuses = sorted(reply.status for reply in replies)
    assert statuses == [200] + [412] * 19
    [winner] = [reply.json["data"] for reply in replies if reply.status == 200]
    assert (await get(client, customer["id"])).json["data"] == winner


async def test_what_does_not_exist_cannot_be_changed(client: Client) -> None:
    refused(await change(client, NOBODY, name="New"), 404, "customer.not_found")
    refused(await change(client, NOBODY, '"1"', name="New"), 404, "customer.not_found")
    refused(await delete(client, NOBODY), 404, "customer.not_found")


async def test_a_customer_is_deactivated_once(client: Client) -> None:
    customer = await created(client)

    first, again = await delete(client, customer["id"]), await delete(client, customer["id"])

    assert (first.status, first.json["data"]["is_active"], first.headers["ETag"]) == (200, False, '"2"')
    assert (again.status, again.headers["ETag"], again.body) == (200, '"2"', first.body)


async def test_a_customer_can_be_activated_again(client: Client) -> None:
    customer = await created(client)
    await delete(client, customer["id"])

    reply = await change(client, customer["id"], is_active=True)

    assert reply.json["data"]["is_active"] is True


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5", "9223372036854775808"])
async def test_an_id_that_no_customer_can_have_is_refused(client: Client, value: str) -> None:
    for reply in (
        await get(client, value),
        await change(client, value, name="New"),
        await delete(client, value),
    ):
        problem = refused(reply, 400, "request.invalid")
        assert [error["pointer"] for error in problem["errors"]] == ["path:customer_id"]


# --- internal -----------------------------------------------------------------------------------


async def test_a_peer_sees_a_customer_active_or_not(client: Client) -> None:
    customer = await created(client)
    path = f"{PREFIX}/internal/customers/{customer['id']}"

    active = await client.get(path, headers=PEER)
    await delete(client, customer["id"])
    inactive = await client.get(path, headers=PEER)

    assert active.json == {"data": customer}
    assert inactive.json["data"]["is_active"] is False


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
async def test_a_stranger_is_refused_before_any_database_work(
    client: Client, app: web.Application, headers: dict[str, str]
) -> None:
    customer = await created(client)

    with statements_sent(app[DATABASE]) as statements:
        reply = await client.get(f"{PREFIX}/internal/customers/{customer['id']}", headers=headers)

    refused(reply, 401, "auth.service_token_invalid")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert statements == []


# --- cost ---------------------------------------------------------------------------------------


async def test_an_operation_costs_a_fixed_number_of_statements(client: Client, app: web.Application) -> None:
    async def cost(call: object) -> list[str]:
        with statements_sent(app[DATABASE]) as statements:
            await call  # type: ignore[misc]  # calls of several kinds
        return [statement.split()[0] for statement in statements]

    customer = await created(client)

    assert await cost(create(client, email="b@example.com")) == ["INSERT", "SELECT"]
    assert await cost(get(client, customer["id"])) == ["SELECT"]
    assert await cost(find(client)) == ["SELECT"]
    assert await cost(change(client, customer["id"], '"1"', name="New")) == ["UPDATE", "SELECT"]
    assert await cost(delete(client, customer["id"])) == ["SELECT", "UPDATE", "SELECT"]
