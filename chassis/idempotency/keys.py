"""The key of a request: where it comes from, what it is valid for, and what it stands for."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field, WithJsonSchema

from chassis.auth import principal
from chassis.errors import FieldError, KeyInvalid, KeyMissing
from chassis.http import Schema

HEADERS = ("Idempotency-Key", "X-Idempotency-Key")
PATTERN = r"^[\x21-\x7e]{1,255}$"
_VALUE = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class Key:
    """A key in its scope, with the fingerprint of the request it came with."""

    scope: bytes
    value: bytes
    fingerprint: bytes


KEY = web.RequestKey("idempotency_key", Key)


class Keyed(Schema):
    """The base of bodies that may carry the idempotency key, instead of a header."""

    # Longer ones are refused as a key, in the words of `key_of`.
    idempotency_key: Annotated[
        Annotated[str, Field(max_length=1000), WithJsonSchema({"type": "string", "pattern": PATTERN})] | None,
        Field(examples=["unique-key-123"]),
    ] = None


def key_of(request: web.Request, route: str, arguments: Mapping[str, Any], *, required: bool) -> Key | None:
    """Take the key from the headers or the body and bind it to this request.

    Raises:
        KeyMissing: there is none, and the operation requires one.
        KeyInvalid: it is not 1 to 255 visible ASCII characters, or two places differ.

    """
    given = [(f"header:{name}", value) for name in HEADERS for value in request.headers.getall(name, ())]
    in_body = getattr(arguments.get("body"), "idempotency_key", None)
    if in_body is not None:
        given.append(("#/idempotency_key", in_body))
    if not given:
        if required:
            raise KeyMissing(f"Send the header {HEADERS[0]} with a value of your own for this request.")
        return None
    values = {_unquoted(value) for _, value in given}
    if len(values) > 1:
        errors = [FieldError(place, "Differs from the other key.") for place, _ in given]
        raise KeyInvalid("The request carries two different idempotency keys.", errors=errors)
    place, value = given[0][0], values.pop()
    if _VALUE.fullmatch(value) is None:
        wants = FieldError(place, "Wants 1 to 255 visible ASCII characters, without spaces.")
        raise KeyInvalid("The idempotency key is not valid.", errors=[wants])
    scope = f"{principal.scope_of(principal.current())} {route}"
    return Key(scope.encode(), value.encode(), _fingerprint(route, arguments))


def _unquoted(value: str) -> str:
    """Take the structured-field form `"abc"` and the bare form for the same."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _fingerprint(route: str, arguments: Mapping[str, Any]) -> bytes:
    """Hash what makes two requests the same: route, path ids and the validated body, if it says anything.

    A key outlives a release: an operation that takes a body since the last one hashes as before without it.
    """
    canonical = {
        name: value.model_dump(mode="json", exclude={"idempotency_key", "correlation_id"})
        if isinstance(value, BaseModel)
        else value
        for name, value in arguments.items()
    }
    canonical = {name: value for name, value in canonical.items() if value != {}}
    return hashlib.sha256(json.dumps([route, canonical], sort_keys=True).encode()).digest()
