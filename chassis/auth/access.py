"""Which credentials an operation takes, and in whose name it acts with them.

An operation with a scope takes an access token that has the scope. Those that peers call take the
service token instead, and believe its bearer in whose name it calls. Internal ones take nothing else.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from chassis.auth import principal
from chassis.auth.bearer import Bearer
from chassis.auth.errors import ScopeMissing, ServiceTokenInvalid, TokenMissing
from chassis.auth.keys import KeyAddress, KeyFile, KeySource
from chassis.auth.limits import Capacity, RateLimit
from chassis.auth.service_tokens import SERVICE_TOKENS, ServiceTokens, bearer_token
from chassis.auth.settings import is_address
from chassis.errors import FieldError, RequestInvalid
from chassis.http import SETTINGS
from chassis.settings import Settings

PRINCIPAL = web.RequestKey("principal", str)
"""Who calls, as soon as that is proven: known also of a request that is refused then."""
log = structlog.get_logger(__name__)


class Access:
    """Who may call the operations of a service. Without `bearer`, everybody may."""

    def __init__(self, settings: Settings, tokens: ServiceTokens, bearer: Bearer | None) -> None:
        self.capacity = Capacity(settings.max_requests)
        self._rate = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self._tokens = tokens
        self._bearer = bearer

    def peer(self, request: web.Request) -> str:
        """The principal for whom a peer calls.

        Raises:
            ServiceTokenInvalid: it is no peer.

        """
        token = bearer_token(request)
        if token is None or not self._tokens.accepts(token):
            raise ServiceTokenInvalid.of("Send Authorization: Bearer with the service token.")
        return _stated(request)

    async def caller(self, request: web.Request, scope: str, *, peers: bool) -> str:
        """The principal who calls, or for whom a peer does, if `peers` may.

        Raises:
            TokenMissing, TokenInvalid, ScopeMissing: it may not call this.
            ServiceTokenInvalid: it speaks for somebody else without being a peer. As `anonymous`, its
                idempotency keys would be new ones.
            KeysUnavailable: whether it may cannot be told now.
            RateExceeded: it may, a little later.

        """
        token = bearer_token(request)
        if peers and token is not None and self._tokens.accepts(token):
            return _stated(request)
        if principal.HEADER in request.headers:
            raise ServiceTokenInvalid.of(f"{principal.HEADER} takes the service token.")
        name = principal.ANONYMOUS
        if self._bearer is not None:
            if token is None:
                raise TokenMissing.of(scope)
            name, scopes = await self._bearer.verified(token)
            request[PRINCIPAL] = name
            if scope not in scopes:
                raise ScopeMissing.of(scope)
        if self._rate is not None:
            self._rate.take(principal.scope_of(name))
        return name


def _stated(request: web.Request) -> str:
    """In whose name a peer says that it calls."""
    header = request.headers.get(principal.HEADER)
    if header is None:
        return principal.ANONYMOUS
    try:
        name = request[PRINCIPAL] = principal.parse(header)
    except ValueError:
        wants = FieldError(f"header:{principal.HEADER}", "Wants an issuer and a subject.")
        raise RequestInvalid("The principal is not valid.", errors=[wants]) from None
    return name


ACCESS = web.AppKey("access", Access)


async def access(app: web.Application) -> AsyncIterator[None]:
    """The context that provides `app[ACCESS]`."""
    settings = app[SETTINGS]
    async with AsyncExitStack() as stack:
        bearer = None
        if settings.auth == "jwt":
            bearer = Bearer(
                await _keys(settings, stack),
                issuer=settings.oidc_issuer or "",
                audience=settings.oidc_audience or "",
                algorithms=settings.oidc_algorithms,
                leeway=settings.oidc_leeway,
            )
        else:
            log.warning("authentication is off: whoever reaches this port may do everything; see AUTH")
        app[ACCESS] = Access(settings, app[SERVICE_TOKENS], bearer)
        yield


async def _keys(settings: Settings, stack: AsyncExitStack) -> KeySource:
    where = settings.oidc_jwks or ""
    if not is_address(where):
        return KeyFile(Path(where), settings.oidc_algorithms)
    session = await stack.enter_async_context(aiohttp.ClientSession())
    # A provider is none of our services: it gets neither traces nor correlation ids.
    AioHttpClientInstrumentor.uninstrument_session(session)
    keys = KeyAddress(session, where, settings.oidc_algorithms)
    stack.push_async_callback(keys.close)
    keys.refresh()  # before the first caller waits for it, and without waiting for it
    return keys
