"""What must never be written down is in no log line, no span and no metric, whatever goes wrong."""

import json
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from dev.otlp import receive_traces
from dev.stack import Stack, stack

SECRETS = {
    "name": "Marked Zaphod",
    "email": "marked.zaphod@heart-of-gold.example",
    "phone": "+15550142042",
    "key": "marked-key-4d2c",
    "token": "marked-service-token-9f1b",
    "wrong token": "marked-stolen-token-77aa",
    "query": "marked-search-42",
}


async def traffic(http: aiohttp.ClientSession, services: Stack) -> int:
    """Everything a caller can do with these values, and what can go wrong; return the number of calls."""
    customers, orders = f"{services.customers.url}/admin/customers", f"{services.orders.url}/admin"
    job = f"{services.orchestrator.url}/orchestrator/create-and-confirm-order"
    person = {name: SECRETS[name] for name in ("name", "email", "phone")}
    calls = 0

    async def call(method: str, url: str, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        async with http.request(method, url, **options) as response:
            body = await response.read()
        return json.loads(body) if body else None

    customer = (await call("POST", f"{customers}/create-customer", json=person))["data"]["id"]
    await call("POST", f"{customers}/create-customer", json=person)
    await call("POST", f"{customers}/create-customer", json={**person, "email": SECRETS["name"]})
    await call("POST", f"{customers}/create-customer", data=json.dumps(person)[:-1])
    await call(
        "PATCH", f"{customers}/update/{customer}", json={"phone": SECRETS["phone"], "x": SECRETS["email"]}
    )
    await call("GET", f"{customers}/find-all?search={SECRETS['query']}")
    await call("GET", f"{customers}/nothing?email={SECRETS['query']}")
    internal = f"{customers}/internal/customers/{customer}"
    for token in (SECRETS["token"], SECRETS["wrong token"]):
        await call("GET", internal, headers={"Authorization": f"Bearer {token}"})

    product = (
        await call(
            "POST",
            f"{orders}/products/create-product",
            json={"sku": "A", "name": "A", "price_cents": 1, "stock": 5},
        )
    )["data"]["id"]
    items = [{"product_id": product, "qty": 1}]
    body = {"customer_id": customer, "items": items, "idempotency_key": SECRETS["key"]}
    await call("POST", job, json=body)
    await call("POST", job, json=body)
    await call("POST", job, json={**body, "items": [{"product_id": product, "qty": 2}]})
    short = {
        **body,
        "items": [{"product_id": product, "qty": 99}],
        "idempotency_key": SECRETS["key"] + "-short",
    }
    await call("POST", job, json=short)
    await call("POST", job, json={**body, "idempotency_key": "x " + SECRETS["key"]})
    for _ in range(2):
        await call(
            "POST",
            f"{orders}/orders/create-order",
            json={"customer_id": customer, "items": items},
            headers={"Idempotency-Key": SECRETS["key"], "Authorization": f"Bearer {SECRETS['wrong token']}"},
        )
    await services.orders.kill()
    await call("POST", job, json={**body, "idempotency_key": SECRETS["key"] + "-late"})
    await services.orders.start()
    await services.customers.kill()
    await call("POST", job, json={**body, "idempotency_key": SECRETS["key"] + "-later"})
    await services.customers.start()
    return calls


async def test_secrets_and_personal_data_are_written_down_nowhere(tmp_path: Path) -> None:
    async with receive_traces() as traces:
        environment = {
            "SERVICE_TOKEN": SECRETS["token"],
            "LOG_LEVEL": "debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "PEER_TIMEOUT": "1",
            "PEER_DEADLINE": "1",
            "ANSWER_TIMEOUT": "2",
            "SWEEP_EVERY": "0.5",
        }
        async with stack(tmp_path, environment=environment) as services, aiohttp.ClientSession() as http:
            AioHttpClientInstrumentor.uninstrument_session(http)  # a caller is none of our services
            calls = await traffic(http, services)
            metrics = ""
            for service in services:
                async with http.get(f"{service.admin_url}/metrics") as response:
                    metrics += await response.text()

    logs = "".join(service.log_file.read_text() for service in services)
    spans = repr(traces.spans)
    assert logs.count('"event": "request"') >= calls
    assert len(traces.spans) > calls
    for written in (logs, spans, metrics):
        assert {what for what, secret in SECRETS.items() if secret in written} == set()
