"""The public keys of an OpenID provider: a JSON Web Key Set, from its address or a file.

From an address they are fetched without holding up requests, kept, and fetched again when they are
old or a token names a key that is not among them, at most every few seconds. With the provider
down, the keys that are known go on working.
"""

import asyncio
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from time import monotonic
from typing import Protocol

import aiohttp
import structlog
from jwt import PyJWK, PyJWTError

from chassis.auth.errors import KeysUnavailable
from chassis.auth.files import WatchedFile

Keys = Mapping[tuple[str, str], PyJWK]
"""Keys by id and algorithm."""
FRESH_SECONDS = 300
PAUSE_SECONDS = 5
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_MAX_BYTES = 1_048_576
log = structlog.get_logger(__name__)


def parse_keys(text: str, algorithms: Collection[str]) -> Keys:
    """The keys of a set that have an id and sign with one of the algorithms.

    Raises:
        ValueError: there is none, or it is no key set at all.

    """
    found: dict[tuple[str, str], PyJWK] = {}
    try:
        entries = json.loads(text)["keys"]
        for entry in entries:
            if entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid"), str):
                continue
            for algorithm in algorithms:
                if entry.get("alg", algorithm) != algorithm:
                    continue
                try:
                    found[entry["kid"], algorithm] = PyJWK(entry, algorithm)
                except PyJWTError:
                    continue  # a key of another kind
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("wants a JSON Web Key Set") from None
    if not found:
        raise ValueError(f"wants a key set with an id and a key for {', '.join(algorithms)}")
    return found


class KeySource(Protocol):
    """Where keys come from."""

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """The key with this id, for this algorithm.

        Raises:
            KeysUnavailable: whether there is such a key cannot be told now.

        """
        ...


class KeyFile:
    """A key set in a file, read again when it changes."""

    def __init__(self, path: Path, algorithms: Collection[str]) -> None:
        self._file = WatchedFile(path, lambda text: parse_keys(text, algorithms))

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """See KeySource."""
        return self._file.value.get((kid, algorithm))


class KeyAddress:
    """A key set at an address."""

    def __init__(self, session: aiohttp.ClientSession, url: str, algorithms: Collection[str]) -> None:
        self._session = session
        self._url = url
        self._algorithms = algorithms
        self._keys: Keys = {}
        self._known = False
        """Whether the last attempt to fetch the keys brought them."""
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """See KeySource."""
        key = self._keys.get((kid, algorithm))
        if key is not None:
            if monotonic() - self._tried_at > FRESH_SECONDS:
                self.refresh()
            return key
        if (fetching := self.refresh()) is not None:
            await asyncio.wait([fetching])  # not cancelled with us: others wait for it, too
        key = self._keys.get((kid, algorithm))
        if key is None and not self._known:
            raise KeysUnavailable("The provider's signing keys cannot be fetched; try again in a moment.")
        return key

    def refresh(self) -> "asyncio.Task[None] | None":
        """Fetch the keys, unless that was tried a moment ago; return the attempt under way, if any."""
        if self._fetching is None and monotonic() - self._tried_at > PAUSE_SECONDS:
            self._tried_at = monotonic()
            self._fetching = asyncio.create_task(self._fetch(), name="fetch signing keys")
        return self._fetching

    async def close(self) -> None:
        """End what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        try:
            async with self._session.get(self._url, timeout=_TIMEOUT, allow_redirects=False) as response:
                response.raise_for_status()
                body = await response.content.read(_MAX_BYTES)
                while len(body) <= _MAX_BYTES and (more := await response.content.read(_MAX_BYTES)):
                    body += more
                self._keys = parse_keys(body.decode(), self._algorithms)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._known = False
            log.warning(
                "the signing keys cannot be fetched, those known go on working",
                reason=type(error).__name__,
                keys=len(self._keys),
            )
        else:
            self._known = True
        finally:
            self._tried_at = monotonic()
            self._fetching = None
