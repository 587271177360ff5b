"""What comes in over HTTP is parsed here, what goes out is an Answer.

Only `parse_body`, `parse_query` and `parse_id` turn a pydantic error into a problem: the same error
anywhere else is a bug of ours, not of the caller.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from aiohttp import hdrs, web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json

from chassis import correlation
from chassis.auth import principal
from chassis.errors import (
    BodyTimeout,
    BodyTooLarge,
    FieldError,
    MediaTypeUnsupported,
    RequestInvalid,
    RequestMalformed,
    VersionMismatch,
)
from chassis.settings import Settings

BODY_PROBLEMS = (RequestMalformed, RequestInvalid, BodyTimeout, BodyTooLarge, MediaTypeUnsupported)

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)
SETTINGS = web.AppKey("settings", Settings)

MAX_ID = 2**63 - 1
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[1])]
"""The id of a row: a positive 64-bit integer."""
Timestamp = Annotated[
    datetime,
    PlainSerializer(
        lambda moment: moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        when_used="json-unless-none",
    ),
]
"""A moment in a view: always with microseconds, which pydantic leaves out when they are zero."""
Principal = Annotated[
    str,
    BeforeValidator(lambda name: name or principal.ANONYMOUS),
    Field(examples=["https://id.example.com/ alice"]),
]
"""In whose name something was done; rows that are older than authentication do not say."""
MAX_DETAILS = 100  # a body of a million bad items is answered with the first hundred


class Schema(BaseModel):
    """The base of what comes in: unknown fields are refused, and `"1"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _partial(schema: dict[str, Any]) -> None:
    schema["minProperties"] = 1
    for described in schema["properties"].values():
        described.pop("default", None)


class Update(Schema):
    """The base of partial updates: what is not given stays as it is, whatever its default."""

    model_config = ConfigDict(json_schema_extra=_partial)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("Give at least one field to change")
        return self


class View(BaseModel):
    """The base of what goes out."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class One(View, Generic[T]):
    """One resource."""

    data: T


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer: what an idempotency key keeps, and what a route sends."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def of(
        cls, view: BaseModel, status: int = 200, *, location: str | None = None, version: int | None = None
    ) -> Self:
        """Render `view`; `version` becomes the ETag, `location` the Location header."""
        headers = {}
        if location is not None:
            headers["Location"] = location
        if version is not None:
            headers["ETag"] = etag(version)
        return cls(status, view.model_dump_json().encode(), headers)

    def response(self) -> web.Response:
        """The same, for aiohttp."""
        return web.Response(
            status=self.status,
            body=self.body,
            headers=self.headers,
            content_type=self.content_type,
            charset="utf-8",
        )


# --- in -----------------------------------------------------------------------------------------


async def parse_body(request: web.Request, schema: type[S], *, optional: bool = False) -> S:
    """Read the body within the limits of size and time and validate it.

    Raises:
        BodyTooLarge, BodyTimeout, MediaTypeUnsupported, RequestMalformed: it cannot be read.
        RequestInvalid: it can, and `errors` lists everything wrong with it.

    """
    raw = await _read(request)
    if optional and not raw:
        raw = b"{}"
    elif (given := _media_type(request)) != "application/json":
        raise MediaTypeUnsupported(f"Send the body as application/json, not as {given[:100] or 'nothing'}.")
    try:
        body = schema.model_validate_json(raw)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        if details[0]["type"] == "json_invalid":
            raise RequestMalformed(
                f"The body is no JSON text: {details[0]['msg'].removeprefix('Invalid JSON: ')}."
            ) from None
        if "correlation_id" in schema.model_fields and isinstance(given := from_json(raw), dict):
            _adopt_correlation_id(request, given.get("correlation_id"))
        raise _invalid(details, "#") from None
    _adopt_correlation_id(request, getattr(body, "correlation_id", None))
    return body


def _adopt_correlation_id(request: web.Request, given: object) -> None:
    """Take the correlation id of a body, unless the header has one."""
    if correlation.HEADER not in request.headers and isinstance(given, str) and correlation.is_valid(given):
        correlation.adopt(given)


def _media_type(request: web.Request) -> str:
    """The media type without its parameters; aiohttp reads those, too, in a time that is quadratic."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()


async def _read(request: web.Request) -> bytes:
    settings = request.app[SETTINGS]
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported("Send the body without a content coding.")
    too_large = BodyTooLarge(f"The body may have at most {settings.max_body_bytes} bytes.")
    if request.content_length is not None and request.content_length > settings.max_body_bytes:
        raise too_large
    try:
        async with asyncio.timeout(settings.body_timeout):
            return await request.read()
    except TimeoutError:
        raise BodyTimeout(f"The body did not arrive within {settings.body_timeout:g} s.") from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except ConnectionError:  # nobody is there to read it, but it is no failure of ours
        raise RequestMalformed("The connection broke before the end of the body.") from None


def parse_query(request: web.Request, schema: type[S]) -> S:
    """Validate the query string; a parameter given twice is refused.

    Raises:
        RequestInvalid: `errors` lists everything wrong with it.

    """
    repeated = [name for name in set(request.query) if len(request.query.getall(name)) > 1]
    if repeated:
        errors = [FieldError(f"query:{name[:100]}", "Given more than once.") for name in sorted(repeated)]
        raise RequestInvalid("A query parameter is given more than once.", errors=errors[:MAX_DETAILS])
    try:
        return schema.model_validate_strings(dict(request.query), strict=False)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise _invalid(details, "query") from None


def parse_id(request: web.Request, name: str, kind: TypeAdapter[Any]) -> Any:  # noqa: ANN401 - what `kind` makes of it
    """Take an id from the path.

    Raises:
        RequestInvalid: it is not of its kind.

    """
    value = request.match_info[name]
    try:
        return kind.validate_python(int(value) if re.fullmatch(r"[0-9]{1,19}", value) else value, strict=True)
    except ValidationError as error:
        errors = [FieldError(f"path:{name}", f"{item['msg']}.") for item in error.errors()]
        raise RequestInvalid("The id in the path is not valid.", errors=errors) from None


def _invalid(details: list[ErrorDetails], place: str) -> RequestInvalid:
    errors = [
        FieldError(_pointer(item["loc"], place), item["msg"].removeprefix("Value error, ").rstrip(".") + ".")
        for item in details[:MAX_DETAILS]
    ]
    return RequestInvalid(f"{len(details)} thing(s) to put right, see errors.", errors=errors)


def _pointer(location: tuple[int | str, ...], place: str) -> str:
    parts = [str(part)[:100].replace("~", "~0").replace("/", "~1") for part in location]
    return "/".join(["#", *parts]) if place == "#" else f"{place}:{'.'.join(parts)}"


# --- versions -----------------------------------------------------------------------------------


def etag(version: int) -> str:
    """The entity tag of a version of a row."""
    return f'"{version}"'


def expected_versions(request: web.Request) -> frozenset[int] | None:
    """The versions that `If-Match` allows; None when it allows any.

    Raises:
        VersionMismatch: it names no version of ours, so nothing can match.

    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    versions = frozenset(int(tag) for tag in re.findall(r'(?<!W/)"([0-9]{1,18})"', header))
    if not versions:
        raise VersionMismatch("If-Match names no version of this resource; read it again for its ETag.")
    return versions


def not_modified(request: web.Request, answer: Answer) -> Answer:
    """The same answer, or 304 when `If-None-Match` already names its version."""
    header = request.headers.get("If-None-Match", "")
    if header.strip() == "*" or answer.headers["ETag"] in re.findall(r'"[^"]*"', header):
        return Answer(304, b"", answer.headers)
    return answer


def prefers_async(request: web.Request) -> bool:
    """Whether the client sent `Prefer: respond-async` (RFC 7240)."""
    return re.search(r"\brespond-async\b", request.headers.get("Prefer", "")) is not None


def stated_wait(request: web.Request) -> float | None:
    """Seconds of `Prefer: wait=n` (RFC 7240); None if the client states none."""
    wait = re.search(r"\bwait=([0-9]{1,6})\b", request.headers.get("Prefer", ""))
    return float(wait.group(1)) if wait else None


def preferred_wait(request: web.Request, longest: float) -> float:
    """The same, at most `longest`, which is also the default."""
    stated = stated_wait(request)
    return longest if stated is None else min(stated, longest)
