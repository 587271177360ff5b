import pytest
from aiohttp import web

from chassis.auth.errors import ServiceTokenInvalid
from chassis.database import DATABASE
from chassis.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    KeyMissing,
    KeyReused,
    RequestInvalid,
    RequestMalformed,
    VersionMismatch,
)
from chassis.http import Answer, One
from chassis.routes import Operation, Routes
from tests.chassis.sample import Count, CounterFull, CounterView, FindCounters, Settings, create_app, routes
from tests.client import Client, Serve, refused
from tests.databases import TOKEN
from tests.observed import statements_sent


def _operation(name: str) -> Operation:
    [operation] = [operation for operation in routes.operations if operation.handler.__name__ == name]
    return operation


def test_the_annotations_of_a_handler_say_what_it_takes() -> None:
    count, find = _operation("count"), _operation("find_counters")

    assert (count.method, count.path, list(count.path_ids)) == (
        "POST",
        "/counters/{counter_id}/count",
        ["counter_id"],
    )
    assert (count.body, count.query) == (Count, None)
    assert (find.body, find.query) == (None, FindCounters)


def test_the_docstring_of_a_handler_is_its_description() -> None:
    described = Routes("described")

    @described.get("/", public=True, answers={200: One[CounterView]})
    async def handler(request: web.Request) -> Answer:
        """Show it.

        At length.
        """
        raise NotImplementedError(request)

    [operation] = described.operations
    assert (operation.summary, operation.description) == ("Show it", "At length.")


def test_an_operation_can_be_refused_with_everything_its_kind_has() -> None:
    count = set(_operation("count").refusals)

    assert {RequestInvalid, RequestMalformed, BodyTooLarge, KeyReused, CounterFull} <= count
    assert KeyMissing not in count
    assert KeyMissing in _operation("reset").refusals
    assert VersionMismatch in _operation("set_counter").refusals
    assert {RequestInvalid, ServiceTokenInvalid, DatabaseUnavailable} <= set(
        _operation("get_counter").refusals
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer ümlaut"},
        {"X-Service-Token": TOKEN},
    ],
)
@pytest.mark.parametrize("path", ["/counters/1/internal", "/counters/nonsense/internal"])
async def test_an_internal_operation_refuses_a_stranger_before_any_other_work(
    settings: Settings, serve: Serve, headers: dict[str, str], path: str
) -> None:
    app = create_app(settings)
    client = await serve(app)

    with statements_sent(app[DATABASE]) as statements:
        reply = await client.get(path, headers=headers)

    refused(reply, 401, "auth.service_token_invalid")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert statements == []
    assert TOKEN not in reply.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_an_internal_operation_takes_the_service_token(client: Client, scheme: str) -> None:
    reply = await client.get("/counters/nonsense/internal", headers={"Authorization": f"{scheme} {TOKEN}"})

    refused(reply, 400, "request.invalid")


async def test_what_can_be_read_can_be_asked_for_its_headers_alone(client: Client) -> None:
    read, asked = await client.get("/"), await client.request("HEAD", "/")

    assert (asked.status, asked.body) == (200, b"")
    assert asked.headers["Content-Length"] == read.headers["Content-Length"]
    assert (await client.request("HEAD", "/counters/1/reset")).status == 405


async def test_a_key_that_is_required_is_asked_for(client: Client) -> None:
    reply = await client.post("/counters/1/reset")

    refused(reply, 400, "idempotency.key_missing")


async def test_an_answer_that_breaks_its_own_schema_is_a_bug_and_not_a_bad_request(
    settings: Settings, serve: Serve
) -> None:
    app = create_app(settings)

    async def faulty(_request: web.Request) -> web.Response:
        return Answer.of(CounterView(id=0, value=1)).response()

    app.router.add_get("/faulty", faulty)
    client = await serve(app)

    reply = await client.get("/faulty")

    refused(reply, 500, "internal.error")
