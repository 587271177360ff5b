"""The tokens that our services call one another with: several at a time, so that they can be rotated.

The first one is sent, all are accepted. To rotate without losing a request: add the new token to all
services as the second one, then make it the first one everywhere, then take the old one away.
"""

import hashlib
import hmac
from typing import NamedTuple

from aiohttp import hdrs, web

from chassis.auth.files import WatchedFile
from chassis.auth.settings import parse_tokens
from chassis.settings import Settings


class ServiceToken(NamedTuple):
    """A token, and the digest that it is compared by."""

    value: str
    digest: bytes


def _digest(token: str) -> bytes:
    # A header may carry any bytes: what is no UTF-8 reaches us as surrogates.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _parse(text: str) -> list[ServiceToken]:
    return [ServiceToken(token, _digest(token)) for token in parse_tokens(text)]


class ServiceTokens:
    """The tokens of this service: those in its files, then those in its environment."""

    def __init__(self, settings: Settings) -> None:
        given = settings.service_token.get_secret_value()
        self._given = _parse(given) if given else []
        self._files = [WatchedFile(path, _parse) for path in settings.service_token_file]

    def current(self) -> str:
        """The token to send."""
        return self._known()[0].value

    def accepts(self, token: str) -> bool:
        """Whether a peer may call with this token.

        Digests of one length are compared in constant time, and all of them whatever the first ones say.
        """
        digest = _digest(token)
        return any([hmac.compare_digest(digest, known.digest) for known in self._known()])  # noqa: C419 - see above

    def _known(self) -> list[ServiceToken]:
        return [token for file in self._files for token in file.value] + self._given


SERVICE_TOKENS = web.AppKey("service_tokens", ServiceTokens)


def bearer_token(request: web.Request) -> str | None:
    """The token of `Authorization: Bearer` (RFC 6750); None if there is none."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None
