"""The OpenAPI 3.1 document of a service, and Swagger UI to read it with.

The document is made from the same operations and schemas that serve the requests, so it cannot
differ from them. Swagger UI's assets come with the package swagger-ui-py and need no network.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import swagger_ui
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from chassis import __version__, correlation, idempotency
from chassis.errors import CONTENT_TYPE, InternalError, Problem
from chassis.routes import Operation, Routes

_ASSETS = Path(swagger_ui.__file__).parent / "static"
_ASSET_NAMES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
Refs = dict[tuple[Any, str], str]
_REF = "#/components/schemas/{model}"
_PROBLEM_EXAMPLE_IDS = {"correlation_id": "req-456", "trace_id": "0af7651916cd43dd8448eb211c80319c"}


def document(
    service: str, description: str, groups: Iterable[Routes], *, secured: bool = True
) -> dict[str, Any]:
    """Describe the operations of a service; `secured` if callers have to send access tokens."""
    groups = list(groups)
    operations = [operation for group in groups for operation in group.operations]
    refs, components = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for group in groups:
        for operation in group.operations:
            described = _operation(operation, group.tag, refs, components)
            if security := _security(operation, secured=secured):
                described["security"] = security
            if links := _links(operation, operations):
                for status in operation.answers:
                    described["responses"][str(status)]["links"] = links
            paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": service, "version": __version__, "description": description},
        "servers": [{"url": "/"}],
        "tags": [{"name": group.tag} for group in groups],
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM_SCHEMA},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _schemas(operations: list[Operation]) -> tuple[Refs, dict[str, Any]]:
    """The schemas of all bodies, and how to refer to each."""
    wanted: list[tuple[type[BaseModel], Any]] = []
    for operation in operations:
        wanted.extend((schema, "serialization") for schema in operation.answers.values())
        if operation.body is not None:
            wanted.append((operation.body, "validation"))
    refs, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_REF)
    return {(model, mode): ref["$ref"] for (model, mode), ref in refs.items()}, definitions.get("$defs", {})


def _operation(operation: Operation, tag: str, refs: Refs, components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "tags": [tag],
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation),
            *_header_parameters(operation),
        ],
        "responses": {
            **{
                str(status): {
                    "description": HTTPStatus(status).phrase,
                    "headers": {correlation.HEADER: {"schema": {"type": "string"}}},
                    "content": _content(refs[schema, "serialization"], components),
                }
                for status, schema in operation.answers.items()
            },
            **_refusals(operation),
        },
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        content = _content(refs[operation.body, "validation"], components)
        described["requestBody"] = {"required": not operation.body_optional, "content": content}
    return described


def _security(operation: Operation, *, secured: bool) -> list[dict[str, list[str]]]:
    """What the operation takes: one of these."""
    found: list[dict[str, list[str]]] = []
    if secured and operation.scope:
        found.append({"access_token": [operation.scope]})
    if operation.internal or (found and operation.peers):
        found.append({"service_token": []})
    return found


def _links(operation: Operation, operations: list[Operation]) -> dict[str, Any]:
    """What can be done next with what the operation creates: every operation that has its id in the path."""
    name = operation.creates
    if name is None:
        return {}
    at_top = all(name in schema.model_fields for schema in operation.answers.values())
    pointer = f"$response.body#/{name}" if at_top else "$response.body#/data/id"
    return {
        other.handler.__name__: {"operationId": other.handler.__name__, "parameters": {name: pointer}}
        for other in operations
        if name in other.path_ids
    }


def _content(ref: str, components: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": ref}
    return {"application/json": {"schema": schema, "example": _instance(schema, components)}}


def _instance(schema: dict[str, Any], components: dict[str, Any]) -> Any:  # noqa: ANN401, PLR0911 - JSON; a return a case
    """An instance of `schema`, made of the examples and defaults of its fields."""
    match schema:
        case {"examples": [first, *_]} | {"default": first} if first is not None:
            return first
        case {"$ref": ref}:
            return _instance(components[ref.rpartition("/")[2]], components)
        case {"const": value} | {"enum": [value, *_]}:
            return value
        case {"anyOf": [first, *_]}:
            return _instance(first, components)
        case {"type": "object", "properties": properties}:
            return {name: _instance(field, components) for name, field in properties.items()}
        case {"type": "object"}:
            return {}
        case {"type": "array", "items": items}:
            return [_instance(items, components)]
        case {"type": kind}:
            return {"integer": 1, "number": 1.5, "boolean": True, "string": "text", "null": None}[kind]
    return None


def _refusals(operation: Operation) -> dict[str, Any]:
    """The refusals by status; each code is an example."""
    by_status: dict[int, list[type[Problem]]] = {}
    refusals: list[type[Problem]] = [*operation.refusals, InternalError]
    for problem in refusals:
        by_status.setdefault(problem.status, []).append(problem)
    return {
        str(int(status)): {
            "description": "; ".join(f"`{problem.code}`: {problem.title}" for problem in problems),
            "content": {
                CONTENT_TYPE: {
                    "schema": {"$ref": _REF.format(model="Problem")},
                    "examples": {
                        problem.code: {"value": _example(problem, operation.path)} for problem in problems
                    },
                }
            },
        }
        for status, problems in by_status.items()
    }


def _example(problem: type[Problem], path: str) -> dict[str, Any]:
    rendered: dict[str, Any] = json.loads(
        problem(problem.title + ".").render(instance=path, **_PROBLEM_EXAMPLE_IDS)
    )
    return rendered


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": kind.json_schema()}
        for name, kind in operation.path_ids.items()
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(ref_template=_REF)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.pop("description", name),
            "schema": _never_null(field),
        }
        for name, field in schema["properties"].items()
    ]


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that may be left out, which is not the same as being null."""
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    schema |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    return schema


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    found = [
        _header(
            correlation.HEADER, "an id of the caller's own, returned and stored", f"^{correlation.PATTERN}$"
        )
    ]
    if operation.key != "none":
        wants = "repeats of the request with the same key have one effect and one answer"
        in_body = operation.body is not None and "idempotency_key" in operation.body.model_fields
        required = operation.key == "required" and not in_body
        found.append(_header("Idempotency-Key", wants, idempotency.PATTERN, required=required))
    if operation.conditional:
        found.append(
            _header(
                "If-Match",
                "the ETag of the version to change; another version is refused with 412",
                r'^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$',
            )
        )
    return found


def _header(
    name: str, description: str, pattern: str | None = None, *, required: bool = False
) -> dict[str, Any]:
    schema = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


_SECURITY_SCHEMES = {
    "access_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "an access token of the OpenID provider, with the scope that the operation names",
    },
    "service_token": {
        "type": "http",
        "scheme": "bearer",
        "description": "what the services call one another with",
    },
}

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457; members beside these belong to single codes and are described there.",
    "required": [
        "type", "title", "status", "detail", "instance", "code", "errors",
        "correlation_id", "trace_id", "retryable",
    ],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "stable; act on this, not on the words"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "correlation_id": {"type": "string"},
        "trace_id": {"type": "string"},
        "retryable": {"type": "boolean", "description": "whether the same request may succeed later"},
    },
}  # fmt: skip

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{url: "openapi.json", dom_id: "#ui", deepLinking: true, displayRequestDuration: true}});
</script>
</body>
</html>
"""


def add_routes(app: web.Application, service: str, describe: Callable[[], dict[str, Any]]) -> None:
    """Serve the document at `/openapi.json`, made when it is first asked for, and Swagger UI at `/docs`."""
    page = _PAGE.format(title=service)

    @cache
    def body() -> bytes:
        return json.dumps(describe()).encode()

    async def openapi_json(_request: web.Request) -> web.Response:
        return web.Response(body=body(), content_type="application/json")

    async def docs(_request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def asset(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(
            _ASSETS / request.match_info["name"], headers={"Cache-Control": "max-age=86400"}
        )

    names = "|".join(re.escape(name) for name in _ASSET_NAMES)
    app.router.add_get("/openapi.json", openapi_json)
    app.router.add_get("/docs", docs)
    app.router.add_get(f"/docs/{{name:{names}}}", asset)
