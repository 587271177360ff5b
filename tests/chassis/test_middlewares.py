import asyncio
import json

import pytest
from aiohttp import ClientOSError, web

from chassis import middlewares
from chassis.errors import PeerUnavailable
from tests.chassis.sample import Settings, create_app
from tests.client import Client, Serve, refused
from tests.observed import LogLines, Sample

BROWSER = "https://shop.example.com"
PREFLIGHT = {"Origin": BROWSER, "Access-Control-Request-Method": "PATCH"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def open_client(settings: Settings, serve: Serve) -> Client:
    """A service that browsers may call from one origin."""
    return await serve(create_app(settings.model_copy(update={"cors_origins": [BROWSER]})))


# --- CORS ---------------------------------------------------------------------------------------


async def test_a_browser_may_read_an_answer(open_client: Client) -> None:
    reply = await open_client.get("/", headers={"Origin": BROWSER})

    assert reply.status == 200
    assert reply.headers["Access-Control-Allow-Origin"] == BROWSER
    assert reply.headers["Vary"] == "Origin"
    exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"ETag", "Location", "Retry-After", "Idempotent-Replayed", "X-Correlation-Id"} <= set(exposed)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/", 405), ("GET", "/broken", 500)]
)
async def test_a_browser_may_read_an_error(open_client: Client, method: str, path: str, status: int) -> None:
    reply = await open_client.request(method, path, headers={"Origin": BROWSER})

    assert reply.status == status
    assert reply.headers["Access-Control-Allow-Origin"] == BROWSER


async def test_a_browser_is_told_before_it_calls_what_it_may_send(open_client: Client) -> None:
    reply = await open_client.request("OPTIONS", "/counters/1", headers=PREFLIGHT)

    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == BROWSER
    assert reply.headers["Access-Control-Allow-Methods"].split(", ") == ["GET", "POST", "PATCH"]
    allowed = reply.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"Content-Type", "Idempotency-Key", "If-Match", "X-Correlation-Id"} <= set(allowed)


async def test_another_origin_is_allowed_nothing(open_client: Client) -> None:
    called = await open_client.get("/", headers={"Origin": "https://evil.example.com"})
    asked = await open_client.request(
        "OPTIONS", "/counters/1", headers={**PREFLIGHT, "Origin": "https://evil.example.com"}
    )

    assert "Access-Control-Allow-Origin" not in called.headers
    assert called.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in asked.headers
    refused(asked, 405, "route.method_not_allowed")


async def test_an_answer_that_depends_on_the_origin_says_so_to_caches(open_client: Client) -> None:
    reply = await open_client.get("/")

    assert reply.headers["Vary"] == "Origin"


async def test_every_origin_may_be_allowed(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings.model_copy(update={"cors_origins": ["*"]})))

    reply = await client.get("/", headers={"Origin": BROWSER})

    assert reply.headers["Access-Control-Allow-Origin"] == "*"


async def test_no_origin_is_allowed_by_default(client: Client) -> None:
    called = await client.get("/", headers={"Origin": BROWSER})
    asked = await client.request("OPTIONS", "/counters/1", headers=PREFLIGHT)

    assert "Access-Control-Allow-Origin" not in called.headers
    assert "Vary" not in called.headers
    refused(asked, 405, "route.method_not_allowed")


# --- correlation --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nowhere", "/broken", "/openapi.json"])
async def test_the_callers_correlation_id_is_on_every_answer(client: Client, path: str) -> None:
    reply = await client.get(path, headers={"X-Correlation-Id": "req-456"})

    assert reply.headers["X-Correlation-Id"] == "req-456"


@pytest.mark.parametrize("given", ["two words", "x" * 129, "", "ümlaut", "a,b"])
async def test_a_bad_correlation_id_is_refused(client: Client, given: str) -> None:
    reply = await client.get("/", headers={"X-Correlation-Id": given})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["header:X-Correlation-Id"]
    assert problem["correlation_id"] == problem["trace_id"]


async def test_the_correlation_id_is_the_trace_id_unless_given(client: Client) -> None:
    first, second = await client.get("/nowhere"), await client.get("/nowhere")

    assert first.json["correlation_id"] == first.json["trace_id"]
    assert first.json["trace_id"] != second.json["trace_id"]


async def test_the_callers_trace_is_continued(client: Client) -> None:
    reply = await client.get("/nowhere", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})

    assert reply.json["trace_id"] == TRACE
    assert reply.headers["X-Correlation-Id"] == TRACE


async def test_a_correlation_id_in_the_baggage_of_a_peer_is_taken(client: Client) -> None:
    reply = await client.get("/", headers={"baggage": "correlation_id=req-7,other=1"})

    assert reply.headers["X-Correlation-Id"] == "req-7"


async def test_concurrent_requests_keep_their_own_correlation_ids(client: Client) -> None:
    ids = [f"req-{number}" for number in range(50)]

    replies = await asyncio.gather(*(client.get("/nowhere", headers={"X-Correlation-Id": i}) for i in ids))

    assert [reply.json["correlation_id"] for reply in replies] == ids


# --- metrics and the access line ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "route", "status", "code"),
    [
        ("/", "/", "200", ""),
        ("/counters/abc", "/counters/{counter_id}", "400", "request.malformed"),
        ("/no/such/path", "unmatched", "404", "route.not_found"),
        ("/broken", "/broken", "500", "internal.error"),
    ],
)
async def test_requests_are_counted_by_route_and_not_by_path(
    client: Client, path: str, route: str, status: str, code: str
) -> None:
    method = "PATCH" if "{" in route else "GET"
    served = Sample(
        "http_server_request_duration_seconds_count",
        http_request_method=method,
        http_route=route,
        http_response_status_code=status,
        error_type="request.invalid" if "{" in route else code,
    )

    await client.request(method, path)

    assert served.moved == 1


async def test_a_method_that_nobody_knows_is_no_label(client: Client) -> None:
    served = Sample(
        "http_server_request_duration_seconds_count",
        http_request_method="_OTHER",
        http_route="unmatched",
        http_response_status_code="405",
        error_type="route.method_not_allowed",
    )

    reply = await client.request("PROPFIND", "/")

    refused(reply, 405, "route.method_not_allowed")
    assert served.moved == 1


async def test_no_request_counts_as_active_once_it_is_answered(client: Client) -> None:
    await client.get("/broken")

    assert Sample("http_server_active_requests").value == 0


async def test_a_slow_request_is_a_warning(
    client: Client, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.get("/")
    monkeypatch.setattr(middlewares, "SLOW_SECONDS", 0)
    await client.get("/")

    assert [line["level"] for line in log_lines()] == ["info", "warning"]


async def test_a_request_is_one_line_in_the_log(client: Client, log_lines: LogLines) -> None:
    await client.get(
        "/broken?secret=1", headers={"X-Correlation-Id": "req-456", "Authorization": "Bearer abc"}
    )

    lines = log_lines()
    error, access = lines
    assert error["event"] == "unhandled error"
    assert "RuntimeError: SELECT secret FROM vault" in error["exception"]
    assert access["event"] == "request"
    assert access["level"] == "info"
    assert access["http.request.method"] == "GET"
    assert access["http.route"] == "/broken"
    assert access["http.response.status_code"] == 500
    assert access["error.code"] == "internal.error"
    assert access["duration_ms"] > 0
    assert access["correlation_id"] == error["correlation_id"] == "req-456"
    assert access["trace_id"] == error["trace_id"]
    assert "secret" not in json.dumps(access)
    assert "abc" not in json.dumps(lines)


async def test_the_number_of_a_broken_connection_is_not_taken_for_one_of_the_database(
    settings: Settings, serve: Serve, log_lines: LogLines
) -> None:
    async def asks_a_peer(_request: web.Request) -> web.Response:
        raise PeerUnavailable("The peer cannot be reached.") from ClientOSError(
            104, "Connection reset by peer"
        )

    app = create_app(settings)
    app.router.add_get("/asks", asks_a_peer)
    client = await serve(app)

    await client.get("/asks")

    *_, access = log_lines()
    assert (access["error.code"], access["error.type"]) == ("peer.unavailable", "ClientOSError")
    assert "db.response.status_code" not in access
