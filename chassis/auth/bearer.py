"""Access tokens: JSON Web Tokens (RFC 9068, RFC 8725) of one OpenID provider for one audience.

To check a signature takes longer than most of what a request does besides. A token that was found valid is
remembered by its digest, and stays so until it expires or its key is not the provider's any more.
"""

import hashlib
from collections.abc import Sequence
from time import time
from typing import Any, NamedTuple

import jwt
from jwt import PyJWK

from chassis.auth import principal
from chassis.auth.errors import TokenInvalid
from chassis.auth.keys import KeySource

MAX_REMEMBERED = 2_000
_REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidAudienceError: "The token is for another audience.",
    jwt.InvalidIssuerError: "The token is of another issuer.",
    jwt.InvalidSignatureError: "The signature of the token is wrong.",
}
_UNREADABLE = "The token is not one that is understood."


class Caller(NamedTuple):
    """Whom a token stands for, and what it allows."""

    principal: str
    scopes: frozenset[str]


class _Valid(NamedTuple):
    """A token that was found valid, until a moment, with a key."""

    caller: Caller
    until: float
    kid: str
    algorithm: str
    key: PyJWK


class Bearer:
    """Checks access tokens."""

    def __init__(
        self, keys: KeySource, *, issuer: str, audience: str, algorithms: Sequence[str], leeway: float
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = algorithms
        self._leeway = leeway
        self._valid: dict[bytes, _Valid] = {}

    async def verified(self, token: str) -> Caller:
        """Who sent this token.

        Raises:
            TokenInvalid: nobody we know, or not any more.
            KeysUnavailable: that cannot be told now.

        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        valid = self._valid.get(digest)
        if valid is None or time() >= valid.until or not await self._is_current(valid):
            valid = self._valid[digest] = await self._checked(token)
            if len(self._valid) > MAX_REMEMBERED:
                del self._valid[next(iter(self._valid))]
        return valid.caller

    async def _is_current(self, valid: _Valid) -> bool:
        """Whether the key of the token is still what the provider says."""
        return await self._keys.find(valid.kid, valid.algorithm) is valid.key

    async def _checked(self, token: str) -> _Valid:
        kid, algorithm, key = await self._key(token)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
            name = principal.named(self._issuer, claims["sub"])
            until = int(claims["exp"]) + self._leeway
        except jwt.MissingRequiredClaimError as error:
            raise TokenInvalid.of(f"The token has no claim {error.claim}.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenInvalid.of(_REASONS.get(type(error), _UNREADABLE)) from None
        return _Valid(Caller(name, _scopes(claims)), until, kid, algorithm, key)

    async def _key(self, token: str) -> tuple[str, str, PyJWK]:
        """The key that the token says it is signed with, if it is one of ours: id, algorithm and itself."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise TokenInvalid.of(_UNREADABLE) from None
        algorithm, kid = header.get("alg"), header.get("kid")
        # Before anything is looked up: `none` and HMAC, with a public key for its secret, end here.
        if algorithm is None or algorithm not in self._algorithms:
            raise TokenInvalid.of(f"The token has to be signed with {' or '.join(self._algorithms)}.")
        if isinstance(kid, str) and (key := await self._keys.find(kid, algorithm)) is not None:
            return kid, algorithm, key
        raise TokenInvalid.of("The token is signed with a key that is not known.")


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """What `scope` (RFC 8693) and `scp` list, separated by spaces or as an array."""
    found: set[str] = set()
    for claim in ("scope", "scp"):
        value = claims.get(claim, [])
        given = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        found.update(scope for scope in given if isinstance(scope, str))
    return frozenset(found)
