"""Tokens as callers send them: to a real service that fetches its keys from a real issuer."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chassis.auth import bearer
from chassis.auth.access import ACCESS
from chassis.database import DATABASE
from tests.chassis.sample import Settings, create_app
from tests.client import Client, Reply, Serve, refused
from tests.issuer import AUDIENCE, ISSUER, Issuer, part
from tests.observed import LogLines, statements_sent

SCOPE = "counters:read"
PATH = "/counters?limit=nonsense"
"""Nonsense that only somebody who was let in is told about."""
Forge = Callable[[Issuer], str]


@pytest.fixture
async def app(settings: Settings, issuer: Issuer) -> web.Application:
    return create_app(settings.model_copy(update=issuer.settings(oidc_leeway=5.0)))


@pytest.fixture
async def client(app: web.Application, serve: Serve) -> Client:
    return await serve(app)


async def _call(client: Client, token: str, **headers: str) -> Reply:
    return await client.get(PATH, headers={"Authorization": f"Bearer {token}", **headers})


def _now() -> int:
    return int(time.time())


def _let_in(reply: Reply) -> None:
    refused(reply, 400, "request.invalid")


def _unsigned(issuer: Issuer) -> str:
    return jwt.encode(_claims(issuer), "", "none", headers={"kid": "key-1"})


def _claims(issuer: Issuer, **claims: Any) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(issuer.token(SCOPE, **claims), options={"verify_signature": False})
    return found


def _stripped(issuer: Issuer) -> str:
    head, payload, _ = issuer.token(SCOPE).split(".")
    return f"{head}.{payload}."


def _none_in_capitals(issuer: Issuer) -> str:
    return f"{part({'alg': 'NONE', 'kid': 'key-1'})}.{part(_claims(issuer))}."


def _hmac_with_the_public_key(issuer: Issuer) -> str:
    """The classic: a checker that takes HMAC, too, would take the public key for its secret."""
    public = issuer.keys["key-1"].public_key()
    secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{part({'alg': 'HS256', 'kid': 'key-1'})}.{part(_claims(issuer))}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _by_somebody_else(_issuer: Issuer) -> str:
    other = Issuer()  # with another key of the same name
    return other.token(SCOPE)


def _with_a_key_of_its_own(issuer: Issuer) -> str:
    """The header of a token may carry a key; it is not to be believed."""
    key = ec.generate_private_key(ec.SECP256R1())
    headers = {"kid": "key-1", "jwk": {"kty": "EC"}, "jku": "https://evil.example.com/jwks"}
    return jwt.encode(_claims(issuer), key, "ES256", headers=headers)


def _tampered(issuer: Issuer) -> str:
    head, _, signature = issuer.token("nothing").split(".")
    return f"{head}.{part(_claims(issuer))}.{signature}"


def _without_a_key_id(issuer: Issuer) -> str:
    return jwt.encode(_claims(issuer), issuer.keys["key-1"], "ES256")


def _with_another_algorithm(issuer: Issuer) -> str:
    key = rsa.generate_private_key(65537, 2048)
    return jwt.encode(_claims(issuer), key, "RS256", headers={"kid": "key-1"})


def _given(**claims: Any) -> Forge:
    return lambda issuer: issuer.token(SCOPE, **claims)


def _moved(**seconds: int) -> Forge:
    """A token with moments that are so many seconds from now."""

    def forge(issuer: Issuer) -> str:
        claims: dict[str, Any] = {name: _now() + by for name, by in seconds.items()}
        return issuer.token(SCOPE, **claims)

    return forge


def _unknown(issuer: Issuer) -> str:
    issuer.add("key-2")
    token = issuer.token(SCOPE)
    del issuer.keys["key-2"]
    return token


FORGERIES: dict[str, Forge] = {
    "alg none": _unsigned,
    "alg NONE": _none_in_capitals,
    "no signature": _stripped,
    "HMAC with the public key": _hmac_with_the_public_key,
    "signed by somebody else": _by_somebody_else,
    "a key in the header": _with_a_key_of_its_own,
    "other claims under a signature": _tampered,
    "no key id": _without_a_key_id,
    "another algorithm with a known key id": _with_another_algorithm,
    "a key id that is no text": lambda issuer: (
        f"{part({'alg': 'ES256', 'kid': 1})}.{part(_claims(issuer))}.x"
    ),
    "a key that is not known": _unknown,
    "another issuer": _given(iss="https://other.example.com/"),
    "an issuer that only begins like ours": _given(iss=ISSUER + "x"),
    "no issuer": _given(iss=None),
    "another audience": _given(aud="other"),
    "other audiences": _given(aud=["other", "third"]),
    "no audience": _given(aud=None),
    "an audience that is no text": _given(aud={"b2b-orders": 1}),
    "expired": _moved(exp=-60),
    "expired beyond the leeway": _moved(exp=-7),
    "no expiry": _given(exp=None),
    "an expiry that is no number": _given(exp="tomorrow"),
    "an endless expiry": _given(exp=float("inf")),
    "not valid yet": _moved(nbf=60),
    "not valid yet, beyond the leeway": _moved(nbf=15),
    "issued in the future": _moved(iat=60),
    "no subject": _given(sub=None),
    "an empty subject": _given(sub=""),
    "a subject that is no text": _given(sub=7),
    "a subject that is too long": _given(sub="x" * 256),
    "a subject with a line end": _given(sub="alice\nroot"),
    "a subject with half a character": _given(sub="\ud800"),
    "garbage": lambda _: "garbage",
    "three parts of garbage": lambda _: "a.b.c",
    "five parts": lambda _: "a.b.c.d.e",
    "a header that is no object": lambda issuer: f"{part([1])}.{part(_claims(issuer))}.x",
    "claims that are no object": lambda issuer: jwt.api_jws.encode(
        b"[]", issuer.keys["key-1"], "ES256", headers={"kid": "key-1"}
    ),
    "claims too deep to read": lambda issuer: jwt.api_jws.encode(
        b"[" * 4000, issuer.keys["key-1"], "ES256", headers={"kid": "key-1"}
    ),
    "a header too deep to read": lambda _: f"{part(b'[' * 4000)}.e30.x",
    "characters that no token has": lambda _: "ümlaut.ß.é",
    "spaces": lambda _: "a b c",
}


@pytest.mark.parametrize("kind", FORGERIES)
async def test_a_token_that_is_not_in_order_is_refused_before_any_other_work(
    app: web.Application, client: Client, issuer: Issuer, log_lines: LogLines, kind: str
) -> None:
    token = FORGERIES[kind](issuer)

    with statements_sent(app[DATABASE]) as statements:
        reply = await _call(client, token)

    refused(reply, 401, "auth.token_invalid")
    assert reply.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token", error_description="')
    assert statements == []
    assert len(token) < 20 or token not in reply.text + str(log_lines())


async def test_a_huge_token_is_refused_by_the_limit_of_headers(client: Client, issuer: Issuer) -> None:
    reply = await _call(client, issuer.token(SCOPE, padding="x" * 10_000))

    refused(reply, 431, "request.headers_too_large")


@pytest.mark.parametrize("claims", [{}, {"exp": -2}, {"nbf": 2}, {"iat": 2}, {"exp": -2, "iat": -62}])
async def test_a_token_in_order_is_taken_within_the_leeway(
    client: Client, issuer: Issuer, claims: dict[str, int]
) -> None:
    _let_in(await _call(client, _moved(**claims)(issuer)))


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": f"other {SCOPE}"},
        {"scope": None, "scp": [SCOPE, "other"]},
        {"scope": None, "scp": f"other {SCOPE}"},
        {"scope": [SCOPE]},
        {"scope": "other", "scp": [SCOPE, 7]},
    ],
)
async def test_scopes_are_found_wherever_providers_put_them(
    client: Client, issuer: Issuer, claims: dict[str, Any]
) -> None:
    _let_in(await _call(client, issuer.token(**claims)))


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": None},
        {"scope": ""},
        {"scope": "counters:write counters counters:reads"},
        {"scope": 7},
        {"scope": {SCOPE: True}},
        {"scope": None, "scp": [[SCOPE]]},
        {"scope": None, "scp": f"{SCOPE},other"},
    ],
)
async def test_a_token_without_the_scope_is_told_which(
    client: Client, issuer: Issuer, claims: dict[str, Any]
) -> None:
    reply = await _call(client, issuer.token(**claims))

    problem = refused(reply, 403, "auth.scope_missing", "scope")
    assert problem["scope"] == SCOPE
    assert reply.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{SCOPE}"'


async def test_tokens_may_be_signed_with_rsa(client: Client, issuer: Issuer) -> None:
    issuer.add("rsa", rsa.generate_private_key(65537, 2048))

    _let_in(await _call(client, issuer.token(SCOPE)))


async def test_a_weak_key_is_not_taken(client: Client, issuer: Issuer) -> None:
    issuer.add("weak", rsa.generate_private_key(65537, 1024))  # noqa: S505 - that it is weak is the point
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = issuer.token(SCOPE)

    refused(await _call(client, token), 401, "auth.token_invalid")


async def test_one_of_several_audiences_is_enough(client: Client, issuer: Issuer) -> None:
    _let_in(await _call(client, issuer.token(SCOPE, aud=["other", AUDIENCE])))


# --- what is remembered -------------------------------------------------------------------------


async def test_a_token_that_was_taken_is_refused_once_it_expired(client: Client, issuer: Issuer) -> None:
    token = issuer.token(SCOPE, exp=_now() - 3)  # the leeway has some seconds left
    _let_in(await _call(client, token))
    _let_in(await _call(client, token))

    async with asyncio.timeout(30):
        while (reply := await _call(client, token)).status != 401:  # noqa: ASYNC110 - nothing tells but the answer
            await asyncio.sleep(0.1)
    refused(reply, 401, "auth.token_invalid")


async def test_tokens_that_are_alike_but_for_their_signature_are_not_taken_for_one_another(
    client: Client, issuer: Issuer
) -> None:
    token = issuer.token(SCOPE)
    _let_in(await _call(client, token))

    for other in (token[:-4] + "AAAA", token[:-1], token + "x"):
        refused(await _call(client, other), 401, "auth.token_invalid")


async def test_no_more_tokens_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, app: web.Application, client: Client, issuer: Issuer
) -> None:
    monkeypatch.setattr(bearer, "MAX_REMEMBERED", 3)

    for number in range(6):
        _let_in(await _call(client, issuer.token(SCOPE, sub=f"alice-{number}")))

    checked = app[ACCESS]._bearer  # noqa: SLF001 - what is bounded
    assert checked is not None
    assert len(checked._valid) == 3  # noqa: SLF001 - as above
