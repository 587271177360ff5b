"""Every failure that a caller sees is a Problem, rendered as RFC 9457 `application/problem+json`.

A subclass is a kind of failure: its status, its stable `code`, its title, whether the same request
may succeed later. An instance adds the detail of one case. Nothing else may reach the wire: no SQL
text, no stack, no words of a peer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with the input.

    `pointer` is a JSON pointer into the body (`#/items/0/qty`), or `query:limit`, `path:order_id`,
    `header:If-Match` for the other places a value can come from.
    """

    pointer: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """A failure with a status, a code and words for the caller.

    `members` are extension members of the body, for instance `shortages`.
    """

    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal.error"
    title: ClassVar[str] = "The service failed; nothing of the request was kept"
    retryable: ClassVar[bool] = False
    retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,  # noqa: ANN401 - JSON values
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.members = members
        self.headers = dict(headers or {})
        if self.retry_after is not None:
            self.headers.setdefault("Retry-After", str(self.retry_after))

    @property
    def final(self) -> bool:
        """Whether an idempotency key keeps this answer: business refusals only (404, 409)."""
        return self.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT) and not self.retryable

    def render(self, *, instance: str, correlation_id: str, trace_id: str) -> bytes:
        """The body, as it goes over the wire."""
        body: dict[str, Any] = {
            "type": f"urn:b2b-orders:problem:{self.code}",
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "errors": [{"pointer": error.pointer, "detail": error.detail} for error in self.errors],
            "correlation_id": correlation_id,
            "trace_id": trace_id,
            "retryable": self.retryable,
        }
        body.update(self.members)
        # What a caller sent may be quoted, and a header or a path may hold what no UTF-8 can.
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


# --- the request itself -----------------------------------------------------------------------


class RequestMalformed(Problem):
    """The bytes are not what HTTP or JSON allows."""

    status = HTTPStatus.BAD_REQUEST
    code = "request.malformed"
    title = "The request cannot be read"


class RequestInvalid(Problem):
    """Readable, but not what this operation takes; `errors` lists everything at once."""

    status = HTTPStatus.BAD_REQUEST
    code = "request.invalid"
    title = "The request is not valid"


class HeadersTooLarge(Problem):
    """Too many header fields, or too long ones."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "request.headers_too_large"
    title = "The request headers are too large"


class HeadTimeout(Problem):
    """The request line and the headers did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "request.head_timeout"
    title = "The request head took too long to arrive"
    retryable = True


class ConnectionsExhausted(Problem):
    """As many requests as the service has connections for are being worked on."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "service.connections_exhausted"
    title = "The service is at its limit of connections"
    retryable = True
    retry_after = 1


class RouteNotFound(Problem):
    """No operation has this path."""

    status = HTTPStatus.NOT_FOUND
    code = "route.not_found"
    title = "There is nothing at this path"


class MethodNotAllowed(Problem):
    """The path exists, with other methods."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "route.method_not_allowed"
    title = "This path does not take this method"


class BodyTimeout(Problem):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "request.body_timeout"
    title = "The request body took too long to arrive"
    retryable = True


class VersionMismatch(Problem):
    """`If-Match` names a version that is not the current one."""

    status = HTTPStatus.PRECONDITION_FAILED
    code = "resource.version_mismatch"
    title = "The resource was changed by someone else"


class BodyTooLarge(Problem):
    """The body is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "request.body_too_large"
    title = "The request body is too large"


class MediaTypeUnsupported(Problem):
    """Bodies are `application/json`, without a content coding."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "request.media_type_unsupported"
    title = "The request body is not JSON"


class ExpectationFailed(Problem):
    """The only expectation a client may state is `100-continue`."""

    status = HTTPStatus.EXPECTATION_FAILED
    code = "request.expectation_failed"
    title = "The expectation in the Expect header cannot be met"


# --- idempotency ------------------------------------------------------------------------------


class KeyMissing(Problem):
    """The operation is not safe to repeat without a key."""

    status = HTTPStatus.BAD_REQUEST
    code = "idempotency.key_missing"
    title = "An idempotency key is required"


class KeyInvalid(Problem):
    """A key is 1 to 255 visible ASCII characters, the same wherever it is given."""

    status = HTTPStatus.BAD_REQUEST
    code = "idempotency.key_invalid"
    title = "The idempotency key is not valid"


class KeyReused(Problem):
    """The key belongs to another request."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "idempotency.key_reused"
    title = "The idempotency key was used for another request"


class KeyInProgress(Problem):
    """The first request with this key is still being worked on."""

    status = HTTPStatus.CONFLICT
    code = "idempotency.in_progress"
    title = "A request with this idempotency key is in progress"
    retryable = True
    retry_after = 1


# --- what the service stands on ----------------------------------------------------------------


class InternalError(Problem):
    """A bug of ours."""


class DatabaseUnavailable(Problem):
    """No connection to the database, or it broke."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.unavailable"
    title = "The database cannot be reached"
    retryable = True
    retry_after = 2


class PoolExhausted(Problem):
    """Every pooled connection stayed in use for the whole pool timeout."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.pool_exhausted"
    title = "The service is at its limit of database work"
    retryable = True
    retry_after = 1


class DatabaseContended(Problem):
    """The transaction lost against others on every attempt."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.contended"
    title = "Too many requests want the same rows"
    retryable = True
    retry_after = 1


class SchemaOutdated(Problem):
    """Tables or columns are missing."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.schema_outdated"
    title = "The database schema is not up to date"
    retryable = True
    retry_after = 10


class DatabaseReadOnly(Problem):
    """The database takes no writes: a maintenance, a replica, a failover under way."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.read_only"
    title = "The database takes no writes at the moment"
    retryable = True
    retry_after = 5


class DatabaseFull(Problem):
    """The database has no room for what was to be written."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.full"
    title = "The database has no room left"
    retryable = True
    retry_after = 30


class SchemaMigrating(Problem):
    """The service has begun to serve while its migrations are being applied."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.migrating"
    title = "The database schema is being brought up to date"
    retryable = True
    retry_after = 5


class SchemaBroken(Problem):
    """A migration failed and is tried again; until it succeeds somebody has to look at the log."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "db.migration_failed"
    title = "The database schema could not be brought up to date"
    retryable = True
    retry_after = 30


class PeerProblem(Problem):
    """A peer gave no answer to act on, in so many attempts."""

    attempts = 1


class PeerUnavailable(PeerProblem):
    """A peer cannot be reached or says that it cannot serve."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "peer.unavailable"
    title = "A service this one needs is not available"
    retryable = True
    retry_after = 2


class PeerTimeout(PeerProblem):
    """A peer did not answer in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "peer.timeout"
    title = "A service this one needs did not answer in time"
    retryable = True
    retry_after = 2


class PeerBroken(PeerProblem):
    """A peer answered with something that breaks its contract."""

    status = HTTPStatus.BAD_GATEWAY
    code = "peer.broken"
    title = "A service this one needs gave an unusable answer"
    retryable = True
    retry_after = 2
