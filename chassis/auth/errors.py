"""What a caller is told who may not do what it asks for; challenges as RFC 6750 has them."""

from http import HTTPStatus

from aiohttp import hdrs

from chassis.errors import Problem


class ServiceTokenInvalid(Problem):
    """The internal operations take the service token and nothing else."""

    status = HTTPStatus.UNAUTHORIZED
    code = "auth.service_token_invalid"
    title = "The service token is missing or wrong"

    @classmethod
    def of(cls, detail: str) -> "ServiceTokenInvalid":
        """The problem with its challenge."""
        return cls(detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


class TokenMissing(Problem):
    """The operation wants to know who calls."""

    status = HTTPStatus.UNAUTHORIZED
    code = "auth.token_missing"
    title = "An access token is required"

    @classmethod
    def of(cls, scope: str) -> "TokenMissing":
        """The problem with its challenge."""
        detail = f"Send Authorization: Bearer with an access token that has the scope {scope}."
        return cls(detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


class TokenInvalid(Problem):
    """The access token is not one of the provider for this audience, or not any more."""

    status = HTTPStatus.UNAUTHORIZED
    code = "auth.token_invalid"
    title = "The access token is not valid"

    @classmethod
    def of(cls, detail: str) -> "TokenInvalid":
        """The problem with its challenge."""
        challenge = f'Bearer error="invalid_token", error_description="{detail.rstrip(".")}"'
        return cls(detail, headers={hdrs.WWW_AUTHENTICATE: challenge})


class ScopeMissing(Problem):
    """The caller is known, and may not do this."""

    status = HTTPStatus.FORBIDDEN
    code = "auth.scope_missing"
    title = "The access token does not allow this"

    @classmethod
    def of(cls, scope: str) -> "ScopeMissing":
        """The problem with its challenge."""
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        return cls(f"This takes the scope {scope}.", headers={hdrs.WWW_AUTHENTICATE: challenge}, scope=scope)


class KeysUnavailable(Problem):
    """Whether a token is valid cannot be told without the provider's keys."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "auth.keys_unavailable"
    title = "Access tokens cannot be checked now"
    retryable = True
    retry_after = 5


class RateExceeded(Problem):
    """One principal sends more requests than RATE_LIMIT."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "limits.rate_exceeded"
    title = "Too many requests"
    retryable = True
    retry_after = 1


class AtCapacity(Problem):
    """The process is at work on MAX_REQUESTS requests already."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "limits.at_capacity"
    title = "The service is at its limit of requests"
    retryable = True
    retry_after = 1
