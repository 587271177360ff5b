"""Who may call what, in whose name, and that nothing happens before that is settled."""

import hashlib
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from sqlalchemy import select

from chassis.database import DATABASE
from chassis.http import Answer, One
from chassis.routes import Routes
from tests.chassis.sample import Counter, CounterView, Settings, create_app, create_tables
from tests.client import Client, Reply, Serve, refused
from tests.databases import TOKEN, MakeSettings
from tests.issuer import ISSUER, Issuer
from tests.observed import LogLines, statements_sent

PEER = {"Authorization": f"Bearer {TOKEN}"}
WRITE = "counters:write"


@pytest.fixture
async def app(make_settings: MakeSettings, issuer: Issuer) -> web.Application:
    return create_app(make_settings(Settings, **issuer.settings()))


@pytest.fixture
async def client(app: web.Application, serve: Serve) -> Client:
    client = await serve(app)
    await create_tables(app[DATABASE], c1=0, c2=0)
    return client


async def _count(client: Client, key: str | None, **headers: str) -> Reply:
    keyed = {} if key is None else {"Idempotency-Key": key}
    body = {"steps": [{"name": "step", "by": 2}]}
    return await client.post("/counters/1/count", body, headers={**keyed, **headers})


async def _value(app: web.Application) -> int:
    async with app[DATABASE].read() as session:
        return (await session.scalars(select(Counter.value).where(Counter.id == 1))).one()


def _replayed(reply: Reply) -> bool:
    return reply.headers.get("Idempotent-Replayed") == "true"


# --- before anything else -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "status", "code"),
    [(None, 401, "auth.token_missing"), ("counters:read", 403, "auth.scope_missing")],
)
@pytest.mark.parametrize("body", [b"{", b'{"steps": []}', b'{"steps": [{"name": "step", "by": 2}]}'])
async def test_who_may_not_is_told_so_before_the_body_or_the_database_is_looked_at(  # noqa: PLR0917 - cases and fixtures
    app: web.Application,
    client: Client,
    issuer: Issuer,
    scope: str | None,
    status: int,
    code: str,
    body: bytes,
) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k-1"}
    if scope is not None:
        headers |= issuer.bearer(scope)

    with statements_sent(app[DATABASE]) as statements:
        reply = await client.request("POST", "/counters/1/count", data=body, headers=headers)

    members = ("scope",) if status == 403 else ()
    refused(reply, status, code, *members)
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert statements == []


@pytest.mark.parametrize("path", ["/", "/health", "/openapi.json", "/docs"])
async def test_what_a_service_says_of_itself_is_open(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 200


async def test_what_is_not_there_is_not_hidden(client: Client) -> None:
    refused(await client.get("/nowhere"), 404, "route.not_found")


# --- keys belong to their principals ------------------------------------------------------------


async def test_two_principals_with_one_key_are_two_requests(
    app: web.Application, client: Client, issuer: Issuer
) -> None:
    alice, bob = issuer.bearer(WRITE), issuer.bearer(WRITE, sub="bob")

    replies = [await _count(client, "k-1", **caller) for caller in (alice, bob, alice, bob)]

    assert [reply.status for reply in replies] == [200] * 4
    assert [_replayed(reply) for reply in replies] == [False, False, True, True]
    assert await _value(app) == 4


async def test_a_replay_wants_the_scope_like_the_first_request(client: Client, issuer: Issuer) -> None:
    first = await _count(client, "k-1", **issuer.bearer(WRITE))

    for headers, status in (
        ({}, 401),
        (issuer.bearer("counters:read"), 403),
        (issuer.bearer(WRITE, exp=1), 401),
    ):
        reply = await _count(client, "k-1", **headers)
        assert (reply.status, _replayed(reply)) == (status, False)
    again = await _count(client, "k-1", **issuer.bearer(WRITE))

    assert _replayed(again)
    assert again.body == first.body


async def test_a_refused_caller_leaves_the_key_free(
    app: web.Application, client: Client, issuer: Issuer
) -> None:
    await _count(client, "k-1", **issuer.bearer("other"))

    assert not _replayed(await _count(client, "k-1", **issuer.bearer(WRITE)))
    assert await _value(app) == 2


async def test_keys_of_before_authentication_was_turned_on_stay_valid_for_peers(
    make_settings: MakeSettings, serve: Serve, client: Client
) -> None:
    """A saga that was started by nobody in particular goes on as such."""
    before = await serve(create_app(make_settings(Settings)))
    first = await _count(before, "k-1")

    again = await _count(client, "k-1", **PEER)

    assert _replayed(again)
    assert again.body == first.body


# --- peers --------------------------------------------------------------------------------------


def _as(principal: str) -> dict[str, str]:
    return {**PEER, "X-Principal": quote(principal)}


async def test_a_peer_acts_in_the_name_that_it_says(client: Client, issuer: Issuer) -> None:
    first = await _count(client, "k-1", **issuer.bearer(WRITE))

    assert _replayed(await _count(client, "k-1", **_as(f"{ISSUER} alice")))
    assert not _replayed(await _count(client, "k-1", **_as(f"{ISSUER} bob")))
    assert not _replayed(await _count(client, "k-1", **PEER))
    assert first.status == 200


@pytest.mark.parametrize("auth", ["jwt", "off"])
@pytest.mark.parametrize("token", [None, "wrong", "of alice"])
async def test_a_stranger_may_not_speak_for_others(  # noqa: PLR0917 - cases and fixtures
    make_settings: MakeSettings, serve: Serve, issuer: Issuer, client: Client, auth: str, token: str | None
) -> None:
    """Not even with AUTH=off, and not as nobody in particular either: the key would be another one."""
    if auth == "off":
        client = await serve(create_app(make_settings(Settings)))
    given = issuer.token(WRITE) if token == "of alice" else token
    headers = {"X-Principal": quote(f"{ISSUER} bob")}
    if given is not None:
        headers["Authorization"] = f"Bearer {given}"

    refused(await _count(client, "k-1", **headers), 401, "auth.service_token_invalid")


@pytest.mark.parametrize(
    "header", ["", "alone", "issuer ", " subject", "%ff subject", "i s%0a", "i " + "x" * 256]
)
async def test_a_principal_that_is_none_is_refused(client: Client, header: str) -> None:
    reply = await _count(client, "k-1", **PEER, **{"X-Principal": header})

    problem = refused(reply, 400, "request.invalid")
    assert problem["errors"][0]["pointer"] == "header:X-Principal"


async def test_the_service_token_opens_what_peers_call_and_nothing_else(client: Client) -> None:
    assert (await _count(client, None, **PEER)).status == 200
    assert (await client.get("/counters/1/internal", headers=PEER)).status == 200
    refused(await client.get("/counters", headers=PEER), 401, "auth.token_invalid")


async def test_an_access_token_does_not_open_what_is_internal(client: Client, issuer: Issuer) -> None:
    headers = issuer.bearer("counters:read counters:write")

    reply = await client.get("/counters/1/internal", headers=headers)

    refused(reply, 401, "auth.service_token_invalid")


# --- what is declared ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared", [{}, {"scope": "a:read", "public": True}, {"public": True, "internal": True}]
)
def test_an_operation_has_to_say_who_may_call(declared: dict[str, Any]) -> None:
    routes = Routes("sample")

    async def handler(request: web.Request) -> Answer:
        raise NotImplementedError(request)

    with pytest.raises(TypeError, match="GET /x has to say who may call"):
        routes.get("/x", answers={200: One[CounterView]}, **declared)(handler)


async def test_the_document_says_what_each_operation_wants(client: Client) -> None:
    document = (await client.get("/openapi.json")).json

    assert set(document["components"]["securitySchemes"]) == {"access_token", "service_token"}
    paths = document["paths"]
    assert paths["/counters"]["get"]["security"] == [{"access_token": ["counters:read"]}]
    assert paths["/counters/{counter_id}/count"]["post"]["security"] == [
        {"access_token": [WRITE]},
        {"service_token": []},
    ]
    assert paths["/counters/{counter_id}/internal"]["get"]["security"] == [{"service_token": []}]
    assert "security" not in paths["/health"]["get"]
    assert {"401", "403", "429", "503"} <= set(paths["/counters"]["get"]["responses"])


async def test_nobody_is_named_in_the_log(client: Client, issuer: Issuer, log_lines: LogLines) -> None:
    await _count(client, "k-1", **issuer.bearer(WRITE, sub="alice@example.com"))
    await _count(client, "k-2", **issuer.bearer("other", sub="alice@example.com"))
    await _count(client, "k-3", **_as(f"{ISSUER} alice@example.com"))

    said = str(log_lines())
    assert "alice" not in said
    assert TOKEN not in said
    assert "Bearer" not in said


async def test_the_log_tells_callers_apart_also_those_who_are_refused(
    client: Client, issuer: Issuer, log_lines: LogLines
) -> None:
    alice = f"{ISSUER} alice@example.com"
    await _count(client, "k-1", **issuer.bearer(WRITE, sub="alice@example.com"))
    await _count(client, "k-2", **issuer.bearer("other", sub="alice@example.com"))
    await _count(client, "k-3", **_as(alice))
    await _count(client, "k-4", **issuer.bearer(WRITE, sub="bob"))
    await _count(client, "k-5")

    said = [line.get("principal") for line in log_lines() if line["event"] == "request"]
    first = hashlib.sha256(alice.encode()).hexdigest()[:16]
    assert said[:3] == [first] * 3
    assert said[3] not in (first, None)
    assert said[4] is None


async def test_a_service_without_authentication_says_so_once(
    log_lines: LogLines, settings: Settings, serve: Serve, issuer: Issuer
) -> None:
    await serve(create_app(settings.model_copy(update=issuer.settings())))
    assert [line for line in log_lines() if line["level"] == "warning"] == []

    await serve(create_app(settings.model_copy(update={"auth": None})))
    [warning] = [line for line in log_lines() if line["level"] == "warning"]
    assert warning["event"].startswith("authentication is off")
