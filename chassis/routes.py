"""What a service declares about its operations, and the function that serves one.

A handler's annotations say what it takes: `body` and `query` are schemas, any other argument beside
`request` is an id in the path. The same declaration parses the request, documents it in OpenAPI and
mounts it on the router, so the three cannot differ.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypedDict, TypeVar, Unpack

from aiohttp import hdrs, web
from opentelemetry import trace
from pydantic import BaseModel, TypeAdapter

from chassis import database, http, idempotency
from chassis.auth import principal
from chassis.auth.access import ACCESS
from chassis.auth.errors import (
    AtCapacity,
    KeysUnavailable,
    RateExceeded,
    ScopeMissing,
    ServiceTokenInvalid,
    TokenInvalid,
    TokenMissing,
)
from chassis.errors import KeyMissing, Problem, RequestInvalid, VersionMismatch
from chassis.http import Answer

Handler = Callable[..., Awaitable[Answer]]
H = TypeVar("H", bound=Handler)


class Declared(TypedDict, total=False):
    """What a decorator is told of an operation; see Operation."""

    answers: Required[dict[int, type[BaseModel]]]
    refuses: tuple[type[Problem], ...]
    key: Literal["none", "optional", "required"]
    scope: str
    peers: bool
    internal: bool
    public: bool
    conditional: bool
    creates: str
    members: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `answers` maps each status of success to the schema of its body. `refuses` are the problems beside
    those that every operation of its kind has. `key` says whether an idempotency key may or must
    come with the request, `internal` that only peers with the service token may call.
    """

    method: str
    path: str
    handler: Handler
    answers: dict[int, type[BaseModel]]
    refuses: tuple[type[Problem], ...] = ()
    key: Literal["none", "optional", "required"] = "none"
    scope: str = ""
    peers: bool = False
    internal: bool = False
    public: bool = False
    members: dict[str, Any] = field(default_factory=dict)
    """Members that every problem of this operation has; see `members_of`."""
    conditional: bool = False
    """Whether the operation changes a versioned resource and heeds `If-Match`."""
    creates: str | None = None
    """The name that paths have for the id of what it creates: the document links it to their operations."""
    body: type[BaseModel] | None = field(init=False)
    body_optional: bool = field(init=False)
    query: type[BaseModel] | None = field(init=False)
    path_ids: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        if [bool(self.scope), self.internal, self.public].count(True) != 1:
            raise TypeError(f"{self.method} {self.path} has to say who may call: scope, internal or public")
        parameters = dict(inspect.signature(self.handler, eval_str=True).parameters)
        body = parameters.pop("body", None)
        query = parameters.pop("query", None)
        parameters.pop("request")
        object.__setattr__(self, "body", body.annotation if body else None)
        object.__setattr__(
            self,
            "body_optional",
            body is not None and self.method == "POST" and _all_optional(body.annotation),
        )
        object.__setattr__(self, "query", query.annotation if query else None)
        path_ids = {name: TypeAdapter(parameter.annotation) for name, parameter in parameters.items()}
        object.__setattr__(self, "path_ids", path_ids)

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[0].rstrip(".")

    @property
    def description(self) -> str:
        """The rest of it."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[2].strip()

    @property
    def refusals(self) -> list[type[Problem]]:
        """Everything this operation can be refused with, in order of status."""
        found: set[type[Problem]] = set(self.refuses)
        found.add(RequestInvalid)  # for one, any request may have a bad correlation id
        if self.path_ids or self.query or self.body:
            found |= set(database.PROBLEMS)
        if self.body:
            found |= set(http.BODY_PROBLEMS)
        if self.key != "none":
            found |= set(idempotency.PROBLEMS)
            if self.key == "required":
                found.add(KeyMissing)
        if self.scope:
            found |= {TokenMissing, TokenInvalid, ScopeMissing, KeysUnavailable, RateExceeded}
        if self.internal or self.peers:
            found.add(ServiceTokenInvalid)
        if not self.public:
            found.add(AtCapacity)
        if self.conditional:
            found.add(VersionMismatch)
        return sorted(found, key=lambda problem: (problem.status, problem.code))

    def route(self) -> web.RouteDef:
        """The operation as a route of aiohttp; what can be read can be asked for its headers alone."""
        if self.method == hdrs.METH_GET:
            return web.get(self.path, self._serve, allow_head=True)
        return web.route(self.method, self.path, self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.public:
            return (await self._answer(request)).response()
        access = request.app[ACCESS]
        name = (
            await access.caller(request, self.scope, peers=self.peers) if self.scope else access.peer(request)
        )
        # A stranger may have to wait for the provider's keys: not in the room of those who may call.
        with access.capacity.entered(), principal.acting(name):
            return (await self._answer(request)).response()

    async def _answer(self, request: web.Request) -> Answer:
        arguments: dict[str, Any] = {
            name: http.parse_id(request, name, kind) for name, kind in self.path_ids.items()
        }
        trace.get_current_span().set_attributes(arguments)
        if self.query is not None:
            arguments["query"] = http.parse_query(request, self.query)
        if self.body is not None:
            arguments["body"] = await http.parse_body(request, self.body, optional=self.body_optional)
        if self.key != "none":
            route = f"{self.method} {self.path}"
            key = idempotency.key_of(request, route, arguments, required=self.key == "required")
            if key is not None:
                request[idempotency.KEY] = key
        return await self.handler(request, **arguments)


def members_of(request: web.Request) -> dict[str, Any]:
    """Members that every problem of the requested operation has, also if it was not reached."""
    operation = getattr(request.match_info.handler, "__self__", None)
    return operation.members if isinstance(operation, Operation) else {}


def _all_optional(schema: type[BaseModel]) -> bool:
    return not any(field.is_required() for field in schema.model_fields.values())


class Routes:
    """The operations of one subject, filled by the decorators `get`, `post` and `patch`."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.operations: list[Operation] = []

    def get(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        """Declare an operation that only reads."""
        return self._operation(hdrs.METH_GET, path, declared)

    def post(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        """Declare an operation that creates or acts."""
        return self._operation(hdrs.METH_POST, path, declared)

    def patch(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        """Declare an operation that changes a resource."""
        return self._operation(hdrs.METH_PATCH, path, declared)

    def _operation(self, method: str, path: str, declared: Declared) -> Callable[[H], H]:
        def add(handler: H) -> H:
            self.operations.append(Operation(method, path, handler, **declared))
            return handler

        return add
