"""What must hold of the OpenAPI document of every service."""

from collections.abc import Iterator
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types
from openapi_spec_validator import OpenAPIV31SpecValidator

from chassis.errors import CONTENT_TYPE
from tests.client import Client

ACCESS_REFUSALS = {
    "auth.token_missing",
    "auth.token_invalid",
    "auth.scope_missing",
    "auth.keys_unavailable",
    "limits.rate_exceeded",
    "limits.at_capacity",
}
"""What whoever calls an operation that has a scope can be told."""
_NOT_DESCRIBED = ("/openapi.json", "/docs")


async def described(client: Client, app: web.Application) -> dict[str, Any]:
    """Assert that the served document is valid, complete and true to the router; return it."""
    reply = await client.get("/openapi.json")
    document: dict[str, Any] = reply.json

    assert reply.headers["Content-Type"] == "application/json"
    OpenAPIV31SpecValidator(document).validate()
    assert {(method, path) for method, path, _ in _operations(document)} == _routes(app)
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(ids) == len(set(ids))
    for method, path, operation in _operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        _check_parameters(document, path, operation)
        _check_content(document, where, operation.get("requestBody", {}).get("content", {}))
        assert "500" in operation["responses"], where
        for status, response in operation["responses"].items():
            assert response["description"], where
            assert set(response["content"]) == {"application/json" if int(status) < 400 else CONTENT_TYPE}, (
                where
            )
            _check_content(document, f"{where} {status}", response["content"])
    return document


def refusals(document: dict[str, Any], method: str, path: str) -> set[str]:
    """The codes that an operation says it can be refused with."""
    responses = document["paths"][path][method.lower()]["responses"].values()
    contents = [response["content"].get(CONTENT_TYPE, {"examples": {}}) for response in responses]
    return {code for content in contents for code in content["examples"]}


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def _routes(app: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
        and not route.resource.canonical.startswith(_NOT_DESCRIBED)
        and route.method != "HEAD"
    }


def _check_parameters(document: dict[str, Any], path: str, operation: dict[str, Any]) -> None:
    parameters = operation["parameters"]
    in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
    assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
    for parameter in parameters:
        assert parameter["in"] == "path" or parameter["description"], (path, parameter)
        Draft202012Validator.check_schema(_rooted(document, parameter["schema"]))


def _check_content(document: dict[str, Any], where: str, content: dict[str, Any]) -> None:
    """Assert that there is an example, and that all of them are instances of their schema."""
    for media in content.values():
        examples = (
            [media["example"]] if "example" in media else [e["value"] for e in media["examples"].values()]
        )
        assert examples, where
        for example in examples:
            errors = list(Draft202012Validator(_rooted(document, media["schema"])).iter_errors(example))
            assert errors == [], where


def _rooted(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}
