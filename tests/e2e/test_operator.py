"""A saga that only an operator can help, in services that want access tokens and have other names."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from dev.otlp import Traces, receive_traces
from dev.stack import Stack, stack
from tests.client import Client
from tests.databases import TOKEN
from tests.issuer import ISSUER, Issuer, open_issuer
from tests.orchestrator.shop import Orchestrator, until
from tests.orchestrator.wire import Wire, answers, open_wire

# One worker runs them all: they share the services.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("operator")]

TRACE_ID, OPERATORS = "5af7651916cd43dd8448eb211c80319c", "6af7651916cd43dd8448eb211c80319c"
BUYER, OPERATOR = "buyer@acme.example", "ops@heart-of-gold.example"
PLATFORM = {
    "OTEL_SERVICE_NAME": "shop-orchestrator",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=not-this-one,service.version=9.9,service.instance.id=pod-7,"
    "k8s.pod.name=pod-7",
}


@dataclass(frozen=True)
class System:
    """The services, the wire before orders, the spans they export, and who gives access tokens."""

    services: Stack
    to_orders: Wire
    traces: Traces
    issuer: Issuer
    session: aiohttp.ClientSession

    def client(self, number: int) -> Client:
        return Client(self.session, list(self.services)[number].port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with (
        open_issuer() as issuer,
        open_wire() as to_orders,
        receive_traces() as traces,
        aiohttp.ClientSession() as session,
    ):
        AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
        told = {
            **{name.upper(): str(value) for name, value in issuer.settings().items()},
            "SERVICE_TOKEN": TOKEN,
            "ORDERS_API_BASE": to_orders.url,
            "PEER_DEADLINE": "0.5",
            "SAGA_ATTEMPTS": "1",
            "SWEEP_EVERY": "0.2",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        folder = tmp_path_factory.mktemp("operator")
        async with stack(folder, environment=told, own={"orchestrator": PLATFORM}) as services:
            to_orders.target = services.orders.url
            yield System(services, to_orders, traces, issuer, session)


async def basket(system: System, name: str) -> dict[str, Any]:
    customer = await system.client(0).post(
        "/admin/customers/create-customer",
        {"name": "ACME", "email": f"ops-{name}@acme.com"},
        headers=system.issuer.bearer("customers:write"),
    )
    product = await system.client(1).post(
        "/admin/products/create-product",
        {"sku": f"DESK-{name}", "name": "Oak desk", "price_cents": 129900, "stock": 10},
        headers=system.issuer.bearer("products:write"),
    )
    return {
        "customer_id": customer.json["data"]["id"],
        "items": [{"product_id": product.json["data"]["id"], "qty": 1}],
    }


def digest(subject: str) -> str:
    """What a log line says of a principal."""
    return hashlib.sha256(f"{ISSUER} {subject}".encode()).hexdigest()[:16]


async def test_what_an_operator_retries_is_told_from_the_first_trace_to_the_end(
    system: System, tmp_path: Path
) -> None:
    body = await basket(system, "2")
    orchestrator, issuer = system.client(2), system.issuer
    buyer, operator = (issuer.bearer("sagas:write sagas:read", sub=who) for who in (BUYER, OPERATOR))
    system.to_orders.breaks("/confirm", *[answers(503)] * 50)
    given_up = await Orchestrator(orchestrator).job(
        body, "key", traceparent=f"00-{TRACE_ID}-b7ad6b7169203331-01", X_Correlation_Id="req-456", **buyer
    )
    path = f"/orchestrator/sagas/{given_up.json['saga_id']}"

    async def saga(status: str) -> Any:
        found = (await orchestrator.get(path, headers=operator)).json["data"]
        return found if found["status"] == status else None

    await until(lambda: saga("NEEDS_ATTENTION"))
    system.to_orders.breaks("/confirm")
    retried = await orchestrator.post(
        f"{path}/retry", headers={**operator, "traceparent": f"00-{OPERATORS}-b7ad6b7169203331-01"}
    )
    ended = await until(lambda: saga("SUCCEEDED"))

    async def continued() -> Any:
        spans = {span.trace_id for span in system.traces.spans if span.name == "saga resumed" and span.links}
        done = [
            span
            for span in system.traces.spans
            if span.trace_id in spans and span.attributes.get("saga.outcome") == "done"
        ]
        return done[0] if done else None

    confirmed = await until(continued)

    async def resumed() -> Any:
        """The span that is exported last: it ends after all that it has done."""
        found = [span for span in system.traces.spans if span.span_id == confirmed.parent_id]
        return found[0] if found else None

    span = await until(resumed)
    assert retried.status == 202, retried.text
    assert [trace_id for trace_id, _ in span.links] == [TRACE_ID]
    assert span.trace_id not in (TRACE_ID, OPERATORS)
    asked = [each for each in system.traces.of(OPERATORS) if each.kind == "SERVER"]
    assert [each.attributes["saga_id"] for each in asked] == [ended["id"]]

    file = tmp_path / "traces.json"
    system.traces.write(file)
    number = ended["order"]["order_number"]
    shown = await system.services.orchestrator.command("trace", number, "--traces", str(file))
    assert (shown.returncode, shown.stderr) == (0, "")
    words = " ".join(shown.stdout.split())
    assert "status SUCCEEDED" in words
    assert f"in the name of {ISSUER} {BUYER}" in words
    assert f"continued in trace {span.trace_id}" in words
    assert f"Trace {OPERATORS}" in words
    assert OPERATOR not in shown.stdout

    lines = [json.loads(line) for line in system.services.orchestrator.log_file.read_text().splitlines()]
    requests = {line["http.route"]: line for line in lines if line["event"] == "request"}
    assert requests["/orchestrator/sagas/{saga_id}/retry"]["principal"] == digest(OPERATOR)
    assert requests["/orchestrator/create-and-confirm-order"]["principal"] == digest(BUYER)
    assert not [line for line in lines if BUYER in str(line) or OPERATOR in str(line)]
    assert BUYER not in repr(system.traces.spans)
    assert OPERATOR not in repr(system.traces.spans)


async def test_what_the_platform_calls_a_service_is_its_name_in_traces_logs_and_metrics(
    system: System,
) -> None:
    await system.client(2).get("/orchestrator/sagas", headers=system.issuer.bearer("sagas:read"))

    wanted = {"service.name": "shop-orchestrator", "service.version": "9.9", "k8s.pod.name": "pod-7"}

    async def exported() -> bool:
        return any(
            {**wanted, "service.instance.id": "pod-7"}.items()
            <= {pair.key: pair.value.string_value for pair in resource.resource.attributes}.items()
            for request in system.traces.requests
            for resource in request.resource_spans
        )

    await until(exported)
    assert {span.service for span in system.traces.spans} <= {"customers", "orders", "shop-orchestrator"}
    lines = [json.loads(line) for line in system.services.orchestrator.log_file.read_text().splitlines()]
    assert {(line["service.name"], line["service.version"]) for line in lines} == {
        ("shop-orchestrator", "9.9")
    }
    async with system.session.get(f"{system.services.orchestrator.admin_url}/metrics") as response:
        (target,) = [line for line in (await response.text()).splitlines() if line.startswith("target_info{")]
    for name, value in wanted.items():
        assert f'{name.replace(".", "_")}="{value}"' in target
