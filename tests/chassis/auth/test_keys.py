"""Where keys come from: an issuer that is up, down, slow, or changes its keys."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from chassis.auth import keys
from chassis.auth.access import ACCESS
from chassis.client import traced_session
from tests.chassis.sample import Settings, create_app
from tests.client import Client, Reply, Serve, refused
from tests.issuer import Issuer
from tests.observed import LogLines

SCOPE = "counters:read"


class System:
    """A service that takes the tokens of an issuer."""

    def __init__(self, app: web.Application, client: Client, issuer: Issuer) -> None:
        self.app = app
        self.client = client
        self.issuer = issuer

    async def call(self, **claims: Any) -> Reply:
        return await self.send(self.issuer.token(SCOPE, **claims))

    async def send(self, token: str) -> Reply:
        headers = {"Authorization": f"Bearer {token}"}
        return await self.client.get("/counters?limit=nonsense", headers=headers)

    def some_time_passes(self, *, old: bool = False) -> None:
        """Let the last look at the keys be so long ago that there may be another one."""
        source = self.app[ACCESS]._bearer._keys  # type: ignore[union-attr]  # noqa: SLF001 - no clock to turn
        assert isinstance(source, keys.KeyAddress)
        source._tried_at -= keys.FRESH_SECONDS + 1 if old else keys.PAUSE_SECONDS + 1  # noqa: SLF001 - as above


@pytest.fixture
async def system(settings: Settings, issuer: Issuer, serve: Serve) -> System:
    app = create_app(settings.model_copy(update=issuer.settings()))
    return System(app, await serve(app), issuer)


def _let_in(reply: Reply) -> None:
    refused(reply, 400, "request.invalid")


def _not_now(reply: Reply) -> None:
    refused(reply, 503, "auth.keys_unavailable")
    assert reply.headers["Retry-After"] == "5"
    assert reply.json["retryable"] is True


async def test_the_keys_are_fetched_once(system: System) -> None:
    for _ in range(5):
        _let_in(await system.call())

    assert system.issuer.asked == 1


async def test_an_issuer_is_told_nothing_of_the_request(
    settings: Settings, issuer: Issuer, serve: Serve
) -> None:
    async with traced_session():  # as in a service that calls peers: from now on, sessions are traced
        app = create_app(settings.model_copy(update=issuer.settings()))
        system = System(app, await serve(app), issuer)
    _let_in(await system.call())
    issuer.add("key-2")
    system.some_time_passes()

    _let_in(await system.call())  # this request makes the service look for the key

    assert issuer.asked == 2
    assert {"traceparent", "baggage", "x-correlation-id", "authorization"} & set(issuer.headers) == set()


async def test_many_who_come_first_wait_for_one_look(
    settings: Settings, issuer: Issuer, serve: Serve
) -> None:
    app = create_app(settings.model_copy(update=issuer.settings()))
    system = System(app, await serve(app), issuer)

    for reply in await asyncio.gather(*(system.call() for _ in range(20))):
        _let_in(reply)

    assert issuer.asked == 1


async def test_a_new_key_is_looked_for_when_a_token_names_it(system: System) -> None:
    _let_in(await system.call())
    before = system.issuer.token(SCOPE)
    system.issuer.add("key-2")
    system.some_time_passes()

    _let_in(await system.call())
    _let_in(await system.send(before))
    assert system.issuer.asked == 2


async def test_a_token_that_came_before_its_key_could_be_looked_for_is_let_in_after_the_next_look(
    system: System,
) -> None:
    _let_in(await system.call())
    system.issuer.add("key-2")
    token = system.issuer.token(SCOPE)

    refused(await system.send(token), 401, "auth.token_invalid")
    system.some_time_passes()

    _let_in(await system.send(token))


async def test_keys_that_are_not_known_are_not_looked_for_all_the_time(system: System) -> None:
    _let_in(await system.call())
    strangers = [Issuer() for _ in range(20)]
    for number, stranger in enumerate(strangers):
        stranger.add(f"stranger-{number}")

    replies = await asyncio.gather(*(system.send(stranger.token(SCOPE)) for stranger in strangers))

    for reply in replies:
        refused(reply, 401, "auth.token_invalid")
    assert system.issuer.asked == 1


async def test_a_stranger_who_waits_for_the_keys_takes_no_room_from_those_who_may_call(
    settings: Settings, issuer: Issuer, serve: Serve
) -> None:
    app = create_app(settings.model_copy(update=issuer.settings(max_requests=1)))
    system = System(app, await serve(app), issuer)
    _let_in(await system.call())
    stranger = Issuer()
    stranger.add("stranger")
    system.some_time_passes()
    issuer.answers.clear()

    waiting = asyncio.create_task(system.send(stranger.token(SCOPE)))
    async with asyncio.timeout(10):
        while issuer.asked < 2:  # noqa: ASYNC110 - nothing else tells that it waits
            await asyncio.sleep(0.01)
    meanwhile = await system.call()
    issuer.answers.set()
    late = await waiting

    _let_in(meanwhile)
    refused(late, 401, "auth.token_invalid")


async def test_a_key_that_was_withdrawn_counts_no_more(system: System) -> None:
    old = system.issuer.token(SCOPE)
    _let_in(await system.send(old))
    system.issuer.add("key-2")
    del system.issuer.keys["key-1"]

    system.some_time_passes(old=True)
    _let_in(await system.send(old))  # the first one after a while causes the look, and does not wait for it

    async with asyncio.timeout(10):
        while (await system.send(old)).status != 401:  # noqa: ASYNC110 - nothing tells but the answer
            await asyncio.sleep(0.01)
    _let_in(await system.call())


async def test_an_issuer_that_is_down_at_the_start_is_waited_for(
    settings: Settings, issuer: Issuer, serve: Serve, log_lines: LogLines
) -> None:
    issuer.answer = web.Response(status=500)
    app = create_app(settings.model_copy(update=issuer.settings()))
    system = System(app, await serve(app), issuer)

    _not_now(await system.call())
    _not_now(await system.call())
    assert issuer.asked == 1
    assert "the signing keys cannot be fetched, those known go on working" in {
        line["event"] for line in log_lines()
    }
    assert (await system.client.get("/")).status == 200

    issuer.answer = None
    system.some_time_passes()
    _let_in(await system.call())


async def test_an_issuer_that_cannot_be_reached_is_waited_for(
    settings: Settings, issuer: Issuer, serve: Serve
) -> None:
    nowhere = issuer.settings(oidc_jwks="http://127.0.0.1:1/jwks")
    app = create_app(settings.model_copy(update=nowhere))

    _not_now(await System(app, await serve(app), issuer).call())


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"keys": []}', b"\xff", b"[" * 4000, b" " * 2_000_000]
)
async def test_with_an_issuer_that_fails_later_the_known_keys_go_on_working(
    system: System, body: bytes
) -> None:
    _let_in(await system.call())
    system.issuer.answer = web.Response(body=body)

    system.some_time_passes(old=True)
    for _ in range(3):
        _let_in(await system.call())
    system.some_time_passes()
    system.issuer.add("key-2")
    _not_now(await system.call())
    _let_in(await system.call(kid="key-1"))


async def test_keys_in_a_file_are_read_again_when_they_change(
    settings: Settings, issuer: Issuer, serve: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(issuer.key_set())
    told = issuer.settings(oidc_jwks=str(file))
    app = create_app(Settings(**settings.model_dump() | told))
    system = System(app, await serve(app), issuer)

    _let_in(await system.call())
    issuer.add("key-2")
    refused(await system.call(), 401, "auth.token_invalid")
    file.write_text(issuer.key_set())
    _let_in(await system.call())
    assert issuer.asked == 0


def test_keys_that_are_of_no_use_are_left_out(issuer: Issuer) -> None:
    one = issuer.key_set()[len('{"keys": [') : -2]
    others = [
        one.replace('"use": "sig"', '"use": "enc"').replace("key-1", "enc"),
        one.replace('"kid": "key-1", ', ""),
        one.replace('"kid": "key-1"', '"kid": 7'),
        one.replace('"kid": "key-1"', '"kid": "other", "alg": "ES384"'),
        '{"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}',
        '{"kid": "nothing"}',
    ]

    found = keys.parse_keys(f'{{"keys": [{", ".join([*others, one])}]}}', ["RS256", "ES256"])

    assert set(found) == {("key-1", "ES256")}


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"keys": 7}', '{"keys": [7]}', '{"keys": []}', '{"keys": [{}]}']
)
def test_a_file_without_a_usable_key_is_refused_at_the_start(
    issuer: Issuer, settings: Settings, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(text)

    with pytest.raises(ValidationError, match="wants a"):
        Settings(**settings.model_dump() | issuer.settings(oidc_jwks=str(file)))
