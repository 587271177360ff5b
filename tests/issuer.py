"""A tiny OpenID provider: it serves the keys that it signs tokens with, and signs whatever it is told."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.client import HOST

AUDIENCE = "b2b-orders"
ISSUER = "https://id.example.com/"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Issuer:
    """Signs with the newest of `keys`, which are by their ids; `asked` counts who wanted the public ones."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, PrivateKey] = {}
        self.asked = 0
        self.headers: list[str] = []
        """Names of the headers that came with the last question."""
        self.answer: web.Response | None = None
        """What is answered instead of the keys."""
        self.answers = asyncio.Event()
        """Cleared, it answers nothing until it is set again."""
        self.answers.set()
        self.add("key-1")

    def add(self, kid: str, key: PrivateKey | None = None) -> None:
        """Sign with another key from now on."""
        self.keys[kid] = key or ec.generate_private_key(ec.SECP256R1())

    def token(self, scope: str | None = None, *, kid: str | None = None, **claims: Any) -> str:
        """A token for `alice` that is valid for a minute; a claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 60, "scope": scope}
        payload = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        name = kid or list(self.keys)[-1]
        algorithm = "RS256" if isinstance(self.keys[name], rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(payload, self.keys[name], algorithm, headers={"kid": name})

    def bearer(self, scope: str | None = None, **claims: Any) -> dict[str, str]:
        """The header that carries such a token."""
        return {"Authorization": f"Bearer {self.token(scope, **claims)}"}

    def key_set(self) -> str:
        """The public keys."""
        return json.dumps({"keys": [_public(kid, key) for kid, key in self.keys.items()]})

    def settings(self, **given: Any) -> dict[str, Any]:
        """What a service is told that takes its tokens."""
        return {
            "auth": "jwt",
            "oidc_issuer": ISSUER,
            "oidc_audience": AUDIENCE,
            "oidc_jwks": f"{self.url}/jwks",
            **given,
        }

    async def serve_keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.headers = [name.lower() for name in request.headers]
        await self.answers.wait()
        if self.answer is not None:
            return web.Response(status=self.answer.status, body=self.answer.body)
        return web.Response(text=self.key_set(), content_type="application/json")


def _public(kid: str, key: PrivateKey) -> dict[str, Any]:
    described: dict[str, Any] = (
        RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    )
    return {**described, "kid": kid, "use": "sig"}


def part(content: Any) -> str:
    """Content as a part of a token."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@asynccontextmanager
async def open_issuer() -> AsyncIterator[Issuer]:
    """An issuer on a socket."""
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/jwks", issuer.serve_keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        issuer.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield issuer
    finally:
        await runner.cleanup()
