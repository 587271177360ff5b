import asyncio
import json
import socket
import struct

import pytest
from prometheus_client import REGISTRY

from chassis.errors import FieldError, PoolExhausted, Problem
from tests.chassis.sample import CounterFull, Settings, create_app
from tests.client import HOST, Client, Serve, refused
from tests.observed import LogLines

COUNT = "/counters/1/count"
HEAD = b"POST /counters/1/count HTTP/1.1\r\nHost: sample\r\n"
JSON = b"Content-Type: application/json\r\n"


async def test_an_unknown_path_is_refused(client: Client) -> None:
    reply = await client.get("/nowhere")

    problem = refused(reply, 404, "route.not_found")
    assert problem["instance"] == "/nowhere"


async def test_a_method_the_path_does_not_take_is_refused_with_those_it_takes(client: Client) -> None:
    reply = await client.request("DELETE", "/counters")

    refused(reply, 405, "route.method_not_allowed")
    assert reply.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"steps": ', id="cut off"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"comment": "\xff"}', id="no UTF-8"),
        pytest.param(b'{"comment": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, id="nested too deeply"),
        pytest.param(b"steps=1", id="a form"),
    ],
)
async def test_a_body_that_is_no_json_is_refused(client: Client, body: bytes) -> None:
    reply = await client.request("POST", COUNT, data=body, headers={"Content-Type": "application/json"})

    refused(reply, 400, "request.malformed")


async def test_everything_wrong_with_a_body_is_listed_at_once(client: Client) -> None:
    steps = [{"name": "", "by": "1"}, {"by": 10, "a/b~c": 1}]

    reply = await client.post(COUNT, {"steps": steps, "id": 7})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [
        "#/steps/0/name",
        "#/steps/0/by",
        "#/steps/1/name",
        "#/steps/1/by",
        "#/steps/1/a~1b~0c",
        "#/id",
    ]


@pytest.mark.parametrize("body", [None, [], "text", 1])
async def test_a_body_that_is_no_object_is_refused(client: Client, body: object) -> None:
    reply = await client.request(
        "POST", COUNT, data=json.dumps(body), headers={"Content-Type": "application/json"}
    )

    problem = refused(reply, 400, "request.invalid")
    assert problem["errors"][0]["pointer"] == "#"


@pytest.mark.parametrize("by", ["1", 1.5, True, None, 10**30])
async def test_a_number_that_is_no_integer_is_refused(client: Client, by: object) -> None:
    reply = await client.post(COUNT, {"steps": [{"name": "one", "by": by}]})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["#/steps/0/by"]


async def test_a_body_with_very_many_errors_is_answered_with_the_first_hundred(client: Client) -> None:
    reply = await client.post(COUNT, {f"unknown_{number}": 1 for number in range(3_000)})

    problem = refused(reply, 400, "request.invalid")
    assert len(problem["errors"]) == 100


async def test_an_update_that_changes_nothing_is_refused(client: Client) -> None:
    reply = await client.patch("/counters/1", {})

    problem = refused(reply, 400, "request.invalid")
    assert problem["errors"] == [{"pointer": "#", "detail": "Give at least one field to change."}]


@pytest.mark.parametrize(
    "value", ["abc", "0", "-1", "1.0", "+1", "9223372036854775808", "1" * 100, "%D9%A3", "%00"]
)
async def test_an_id_that_no_row_can_have_is_refused(client: Client, value: str) -> None:
    reply = await client.patch(f"/counters/{value}", {"value": 1})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["path:counter_id"]


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("limit=0", ["query:limit"]),
        ("limit=101", ["query:limit"]),
        ("limit=ten&above=x&nothing=1", ["query:limit", "query:above", "query:nothing"]),
        ("limit=1&limit=2", ["query:limit"]),
        ("limit=1&above=1&above=1&limit=1", ["query:above", "query:limit"]),
        ("cursor=" + "x" * 600, ["query:cursor"]),
    ],
)
async def test_everything_wrong_with_a_query_is_listed(
    client: Client, query: str, pointers: list[str]
) -> None:
    reply = await client.get(f"/counters?{query}")

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == pointers


async def test_a_body_that_does_not_arrive_in_time_is_refused(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings.model_copy(update={"body_timeout": 0.05})))

    reply = await client.send(HEAD + JSON + b'Content-Length: 100\r\n\r\n{"steps"')

    problem = refused(reply, 408, "request.body_timeout")
    assert problem["retryable"] is True
    assert reply.headers["Connection"] == "close"


@pytest.mark.parametrize("end", ["reset", "end of file"])
async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_failure_of_ours(
    client: Client, log_lines: LogLines, end: str
) -> None:
    _, writer = await asyncio.open_connection(HOST, client.port)
    writer.write(HEAD + JSON + b'Content-Length: 100\r\n\r\n{"steps"')
    await _until_active(1)

    if end == "reset":
        at_once = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()
    await _until_active(0)

    lines = [(line["event"], line["level"], line["http.response.status_code"]) for line in log_lines()]
    assert lines == [("request", "info", 400)]


async def _until_active(requests: int) -> None:
    async with asyncio.timeout(30):
        while REGISTRY.get_sample_value("http_server_active_requests") != requests:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def test_a_body_that_says_it_is_too_large_is_refused_unread(client: Client, settings: Settings) -> None:
    length = f"Content-Length: {settings.max_body_bytes + 1}\r\n\r\n".encode()

    reply = await client.send(HEAD + JSON + length)

    refused(reply, 413, "request.body_too_large")


async def test_a_body_that_grows_too_large_is_refused(client: Client, settings: Settings) -> None:
    size = settings.max_body_bytes + 1
    chunk = f"{size:x}\r\n".encode() + b" " * size + b"\r\n0\r\n\r\n"

    reply = await client.send(HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)

    refused(reply, 413, "request.body_too_large")


async def test_a_body_as_large_as_allowed_is_read(client: Client, settings: Settings) -> None:
    body = b"[" + b" " * (settings.max_body_bytes - 2) + b"]"

    reply = await client.request("POST", COUNT, data=body, headers={"Content-Type": "application/json"})

    refused(reply, 400, "request.invalid")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
        {"Content-Type": "nonsense"},
    ],
)
async def test_a_body_that_is_not_plain_json_is_refused(client: Client, headers: dict[str, str]) -> None:
    reply = await client.request("POST", COUNT, data=b"\x1f\x8b\x08\x00 and so on", headers=headers)

    refused(reply, 415, "request.media_type_unsupported")


@pytest.mark.parametrize("path", [b"/counters/1/count", b"/nowhere"])
async def test_an_expectation_that_nobody_can_meet_is_refused(client: Client, path: bytes) -> None:
    request = b"POST " + path + b" HTTP/1.1\r\nHost: sample\r\nExpect: miracle\r\nContent-Length: 2\r\n\r\n{}"

    reply = await client.send(request)

    refused(reply, 417, "request.expectation_failed")


@pytest.mark.parametrize(
    "name",
    [
        b"Accept", b"Authorization", b"baggage", b"Content-Encoding", b"Content-Type", b"Expect", b"Host",
        b"Idempotency-Key", b"If-Match", b"If-None-Match", b"Origin", b"Prefer", b"traceparent",
        b"tracestate", b"X-Correlation-Id", b"X-Principal",
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", [b"POST /counters/1/count", b"GET /counters/1", b"GET /no\xffwhere?\xff"])
async def test_bytes_that_are_no_text_are_no_failure_of_ours(
    client: Client, target: bytes, name: bytes, log_lines: LogLines
) -> None:
    head = target + b" HTTP/1.1\r\n" + (b"" if name == b"Host" else b"Host: sample\r\n")

    reply = await client.send(head + name + b": \xff\xe4 =\xff\r\nContent-Length: 2\r\n\r\n{}")

    assert reply.status < 500 or reply.json["code"] == "db.schema_outdated"
    assert "unhandled error" not in [line["event"] for line in log_lines()]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"".join(b"X-%d: 1\r\n" % number for number in range(100)), id="too many"),
        pytest.param(b"X-Long: " + b"x" * 10_000 + b"\r\n", id="too long"),
        pytest.param(b"X" * 10_000 + b": 1\r\n", id="too long a name"),
    ],
)
async def test_too_many_and_too_long_headers_are_refused(client: Client, headers: bytes) -> None:
    reply = await client.send(b"GET /counters HTTP/1.1\r\nHost: sample\r\n" + headers + b"\r\n")

    refused(reply, 431, "request.headers_too_large")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost sample\r\n\r\n",
        b"POST /counters HTTP/1.1\r\nContent-Length: ten\r\n\r\n",
        b"POST /counters HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_http_are_refused(client: Client, request_bytes: bytes) -> None:
    reply = await client.send(request_bytes)

    refused(reply, 400, "request.malformed")


async def test_a_bug_leaks_nothing(client: Client) -> None:
    reply = await client.get("/broken?token=abc")

    problem = refused(reply, 500, "internal.error")
    assert "secret" not in reply.text
    assert "vault" not in reply.text
    assert problem["instance"] == "/broken"


async def test_a_problem_of_another_code_has_its_own_members() -> None:
    problem = CounterFull("Counter 1 is at 9.", errors=[FieldError("#/by", "Wants less.")], left=1)

    rendered = json.loads(problem.render(instance="/counters/1", correlation_id="req-1", trace_id="f" * 32))

    assert rendered == {
        "type": "urn:b2b-orders:problem:counter.full",
        "title": "The counter is full",
        "status": 409,
        "detail": "Counter 1 is at 9.",
        "instance": "/counters/1",
        "code": "counter.full",
        "errors": [{"pointer": "#/by", "detail": "Wants less."}],
        "correlation_id": "req-1",
        "trace_id": "f" * 32,
        "retryable": False,
        "left": 1,
    }


async def test_a_retryable_problem_says_when_to_come_back() -> None:
    problem = PoolExhausted("Try again.")

    assert problem.retryable
    assert problem.headers == {"Retry-After": "1"}


async def test_only_business_refusals_are_final() -> None:
    final = [kind.code for kind in _all_kinds(Problem) if kind("x").final and kind.code.startswith("counter")]
    unfinal = [kind("x").status for kind in _all_kinds(Problem) if not kind("x").final]

    assert sorted(final) == ["counter.full", "counter.not_found"]
    assert {400, 401, 408, 412, 413, 415, 422, 500, 502, 503, 504} <= set(unfinal)


def _all_kinds(kind: type[Problem]) -> list[type[Problem]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _all_kinds(below))]
