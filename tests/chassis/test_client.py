import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from opentelemetry import context as otel_context
from opentelemetry import trace

from chassis import client, correlation
from chassis.client import HTTP, Peer
from chassis.errors import PeerBroken, PeerProblem, PeerTimeout, PeerUnavailable
from chassis.telemetry import traces
from tests.client import HOST
from tests.observed import Sample

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakePeer:
    """A peer on a socket of its own; answers with `answers` in turn, with the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[web.Response | Respond] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if callable(answer):
            return await answer(request)
        return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type)


@pytest.fixture
def fake() -> FakePeer:
    return FakePeer()


@pytest.fixture
async def peer(fake: FakePeer) -> AsyncIterator[Peer]:
    """Our side of the calls to the fake, by the client session that the services have."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()

    async def session(app: web.Application) -> AsyncIterator[None]:
        async for _ in client.http_client(app):
            yield

    caller = web.Application()
    caller.cleanup_ctx.append(session)
    caller_runner = web.AppRunner(caller)
    await caller_runner.setup()
    url = f"http://{HOST}:{runner.addresses[0][1]}"
    yield Peer(caller[HTTP], "peer", url, token=lambda: "abc", attempt_seconds=5, deadline_seconds=5)
    await caller_runner.cleanup()
    await runner.cleanup()


def _impatient(peer: Peer, *, attempt_seconds: float = 5, deadline_seconds: float = 0.2) -> Peer:
    return Peer(
        peer._session,  # noqa: SLF001 - the same session, to the same address
        "peer",
        peer._base_url,  # noqa: SLF001 - as above
        token=lambda: "abc",
        attempt_seconds=attempt_seconds,
        deadline_seconds=deadline_seconds,
    )


def _json(status: int, body: str = "{}") -> web.Response:
    return web.Response(status=status, body=body.encode(), content_type="application/json")


@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 404, 409, 412, 422])
async def test_a_definitive_answer_is_not_asked_for_again(peer: Peer, fake: FakePeer, status: int) -> None:
    fake.answers = [_json(status, '{"n": 1}'), _json(200)]

    answer = await peer.post("/orders", {"qty": 1}, key="k-1")

    assert (answer.status, answer.body, answer.attempts) == (status, {"n": 1}, 1)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_passing_failure_is_retried_with_the_same_key(
    peer: Peer, fake: FakePeer, status: int
) -> None:
    fake.answers = [_json(status), _json(status), _json(201, '{"n": 1}')]

    answer = await peer.post("/orders", {"qty": 1}, key="k-1")

    assert (answer.status, answer.body, answer.attempts) == (201, {"n": 1}, 3)
    assert [request.headers["Idempotency-Key"] for request in fake.requests] == ["k-1"] * 3
    assert fake.bodies == [b'{"qty": 1}'] * 3


async def test_reads_are_retried_without_a_key(peer: Peer, fake: FakePeer) -> None:
    fake.answers = [_json(503), _json(200)]

    answer = await peer.get("/customers/1")

    assert (answer.status, answer.attempts) == (200, 2)
    assert "Idempotency-Key" not in fake.requests[1].headers
    assert fake.requests[1].headers["Authorization"] == "Bearer abc"


async def test_a_call_in_progress_at_the_peer_is_asked_for_again(peer: Peer, fake: FakePeer) -> None:
    fake.answers = [_json(409, '{"code": "idempotency.in_progress"}'), _json(201)]

    answer = await peer.post("/orders", {}, key="k-1")

    assert (answer.status, answer.attempts) == (201, 2)


async def test_a_peer_that_stays_unavailable_is_given_up_after_the_deadline(
    peer: Peer, fake: FakePeer
) -> None:
    fake.answers = [_json(503)]

    with pytest.raises(PeerUnavailable, match="peer answered 503") as given_up:
        await _impatient(peer).post("/orders", {}, key="k-1")

    assert given_up.value.attempts == len(fake.requests) > 1


async def test_a_peer_that_does_not_answer_is_a_timeout(peer: Peer, fake: FakePeer) -> None:
    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    fake.answers = [never]

    with pytest.raises(PeerTimeout, match="did not answer in time"):
        await _impatient(peer, attempt_seconds=0.05).post("/orders", {}, key="k-1")


async def test_a_peer_that_stops_in_the_middle_of_its_answer_is_unavailable(
    peer: Peer, fake: FakePeer
) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"half":')
        assert request.transport is not None
        request.transport.abort()
        return response

    fake.answers = [half]

    with pytest.raises(PeerUnavailable, match="cannot be reached"):
        await _impatient(peer).post("/orders", {}, key="k-1")


async def test_a_broken_connection_is_retried(peer: Peer, fake: FakePeer) -> None:
    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    fake.answers = [drop, _json(201)]

    answer = await peer.post("/orders", {}, key="k-1")

    assert (answer.status, answer.attempts) == (201, 2)


async def test_a_refused_connection_is_unavailable(peer: Peer) -> None:
    nobody = Peer(
        peer._session,  # noqa: SLF001 - the same session, to an address where nobody listens
        "peer",
        f"http://{HOST}:1",
        token=lambda: "abc",
        attempt_seconds=1,
        deadline_seconds=0.2,
    )

    with pytest.raises(PeerUnavailable, match="cannot be reached"):
        await nobody.get("/")


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff\xfe{}", b"null", b"[]", b"[" * 100_000])
async def test_an_answer_that_is_no_json_object_is_broken(peer: Peer, fake: FakePeer, body: bytes) -> None:
    fake.answers = [web.Response(body=body, content_type="application/json")]

    with pytest.raises(PeerBroken):
        await _impatient(peer).get("/customers/1")


@pytest.mark.parametrize("status", [301, 307, 405])
async def test_something_else_at_the_peers_address_is_broken(peer: Peer, fake: FakePeer, status: int) -> None:
    fake.answers = [_json(status)]

    with pytest.raises(PeerBroken, match="is not what answers"):
        await _impatient(peer).post("/orders", {}, key="k-1")


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_over_the_limit_is_broken_and_not_read(
    peer: Peer,
    fake: FakePeer,
    announced: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_MAX_ANSWER_BYTES", 1000)

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "2000"} if announced else {})
        await response.prepare(request)
        await response.write(b'"' + b"x" * 1998 + b'"')
        return response

    fake.answers = [large]

    with pytest.raises(PeerBroken, match="over the limit"):
        await _impatient(peer).get("/")


async def test_what_a_peer_said_is_not_told_to_our_caller(peer: Peer, fake: FakePeer) -> None:
    fake.answers = [_json(500, '{"detail": "SELECT secret FROM vault"}')]

    with pytest.raises(PeerProblem) as failed:
        await _impatient(peer).get("/")

    rendered = failed.value.render(instance="/", correlation_id="", trace_id="").decode()
    assert "secret" not in rendered


async def test_calls_carry_the_correlation_id_and_continue_the_trace(peer: Peer, fake: FakePeer) -> None:
    fake.answers = [_json(503), _json(200)]
    token = otel_context.attach(correlation.carried("req-456"))

    with traces.tracer.start_as_current_span("caller") as span:
        await peer.get("/customers/1")
    otel_context.detach(token)

    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    for request in fake.requests:
        assert request.headers["X-Correlation-Id"] == "req-456"
        assert request.headers["traceparent"].split("-")[1] == trace_id
        assert request.headers["baggage"] == "correlation_id=req-456"
    spans = {request.headers["traceparent"].split("-")[2] for request in fake.requests}
    assert len(spans) == 2


async def test_each_attempt_is_measured_by_its_status_or_its_failure(peer: Peer, fake: FakePeer) -> None:
    labels = {"http_request_method": "POST", "server_address": HOST, "server_port": str(peer.port)}
    name = "http_client_request_duration_seconds_count"
    answered = Sample(name, **labels, http_response_status_code="201", error_type="")
    failed = Sample(name, **labels, http_response_status_code="", error_type="peer.unavailable")
    fake.answers = [_json(503), _json(503), _json(201)]

    await peer.post("/orders", {}, key="k-1")

    assert (failed.moved, answered.moved) == (2, 1)


# --- the service token --------------------------------------------------------------------------


async def test_a_call_whose_token_was_rotated_meanwhile_is_made_again_with_the_new_one(
    peer: Peer, fake: FakePeer
) -> None:
    tokens = ["old"]
    peer._token = lambda: tokens[-1]  # noqa: SLF001 - what a watched file does

    async def rotated(_request: web.Request) -> web.Response:
        tokens.append("new")
        return _json(401)

    fake.answers = [rotated, _json(200)]

    answer = await peer.post("/orders", {}, key="k-1")

    assert answer.status == 200
    sent = [request.headers["Authorization"] for request in fake.requests]
    assert sent == ["Bearer old", "Bearer new"]
