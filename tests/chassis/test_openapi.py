import re

from aiohttp import web

from chassis.app import build_app
from chassis.http import Answer, Id, One
from chassis.routes import Routes
from tests.chassis.sample import CounterView, SetCounter, Settings, create_app
from tests.client import Client, Serve
from tests.documents import ACCESS_REFUSALS, described, refusals


async def test_the_document_is_valid_complete_and_true_to_the_router(
    settings: Settings, serve: Serve
) -> None:
    app = create_app(settings)
    client = await serve(app)

    document = await described(client, app)

    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "sample", "version": "0.1.0", "description": "It counts."}
    assert set(document["paths"]["/counters/{counter_id}/count"]) == {"post"}


async def test_the_document_says_what_an_operation_refuses(client: Client) -> None:
    document = (await client.get("/openapi.json")).json

    assert refusals(document, "POST", "/counters/{counter_id}/count") == {
        *ACCESS_REFUSALS,
        "auth.service_token_invalid",
        "request.malformed",
        "request.invalid",
        "request.body_timeout",
        "request.body_too_large",
        "request.media_type_unsupported",
        "idempotency.key_invalid",
        "idempotency.key_reused",
        "idempotency.in_progress",
        "counter.not_found",
        "counter.full",
        "db.unavailable",
        "db.contended",
        "db.pool_exhausted",
        "db.read_only",
        "db.full",
        "db.schema_outdated",
        "db.migrating",
        "db.migration_failed",
        "internal.error",
    }
    assert refusals(document, "GET", "/health") == {
        "request.invalid",
        "db.unavailable",
        "db.pool_exhausted",
        "db.migrating",
        "db.migration_failed",
        "internal.error",
    }
    assert refusals(document, "GET", "/") == {"request.invalid", "internal.error"}


async def test_the_document_says_what_an_operation_takes(client: Client) -> None:
    paths = (await client.get("/openapi.json")).json["paths"]

    def headers(path: str, method: str) -> set[str]:
        parameters = paths[path][method]["parameters"]
        return {parameter["name"] for parameter in parameters if parameter["in"] == "header"}

    assert headers("/counters/{counter_id}/count", "post") == {"X-Correlation-Id", "Idempotency-Key"}
    assert headers("/counters/{counter_id}", "patch") == {"X-Correlation-Id", "If-Match"}
    assert headers("/counters", "get") == {"X-Correlation-Id"}
    reset = paths["/counters/{counter_id}/reset"]["post"]["parameters"]
    assert [parameter["required"] for parameter in reset if parameter["name"] == "Idempotency-Key"] == [True]
    query = [parameter for parameter in paths["/counters"]["get"]["parameters"] if parameter["in"] == "query"]
    assert [parameter["name"] for parameter in query] == ["limit", "cursor", "above"]
    assert query[0]["schema"]["maximum"] == 100
    assert paths["/counters/{counter_id}/internal"]["get"]["security"] == [{"service_token": []}]


async def test_the_page_of_the_document_needs_no_network(client: Client) -> None:
    page = await client.get("/docs")

    assert page.headers["Content-Type"].startswith("text/html")
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert "//" not in page.text
    links = re.findall(r'(?:href|src|url)(?:=|: )"([^"]+)"', page.text)
    assert len(links) == 4
    for link in links:
        reply = await client.get(f"/{link}")
        assert reply.status == 200, link
        assert len(reply.body) > 500, link


async def test_only_the_assets_of_the_page_are_served(client: Client) -> None:
    for name in ("oauth2-redirect.html", "../__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py"):
        reply = await client.get(f"/docs/{name}")
        assert reply.status == 404, name


async def test_the_document_links_what_is_created_to_what_can_be_done_with_it(
    settings: Settings, serve: Serve
) -> None:
    routes = Routes("things")

    @routes.post("/things", public=True, answers={201: One[CounterView]}, creates="thing_id")
    async def create_thing(request: web.Request) -> Answer:
        raise NotImplementedError

    @routes.get("/things/{thing_id}", public=True, answers={200: One[CounterView]})
    async def get_thing(request: web.Request, thing_id: Id) -> Answer:
        raise NotImplementedError

    client = await serve(build_app(settings, description="Things.", routes=[routes]))
    paths = (await client.get("/openapi.json")).json["paths"]

    assert paths["/things"]["post"]["responses"]["201"]["links"] == {
        "get_thing": {"operationId": "get_thing", "parameters": {"thing_id": "$response.body#/data/id"}}
    }
    assert "links" not in paths["/things/{thing_id}"]["get"]["responses"]["200"]


def test_an_update_that_changes_nothing_is_not_described_as_valid() -> None:
    schema = SetCounter.model_json_schema()

    assert schema["minProperties"] == 1
    assert "default" not in schema["properties"]["value"]
