"""`make up`: the three services on the embedded database in var/, with something to try, until Ctrl-C.

`python -m dev.up FOLDER` keeps data and logs in another folder.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from dev.sample import Sample, load
from dev.scene import JOB, money
from dev.stack import PORTS, ROOT, ServiceFailed, Stack, run, stack

DEFAULT_FOLDER = ROOT / "var"


async def main(folder: Path) -> int:
    """Keep the services running, and say what to do with them."""
    # What observes the services may be told from outside; everything else is as printed.
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "LOG_"))}
    print("Starting the three services …", flush=True)
    try:
        async with stack(folder, environment=passed_on, ports="default-if-free") as services:
            async with aiohttp.ClientSession() as http:
                sample = await load(http, services)
            print("\n".join(_guide(folder, services, sample)), flush=True)
            with suppress(asyncio.CancelledError):  # Ctrl-C or SIGTERM
                await asyncio.Event().wait()
            print("\nStopping …", flush=True)
    except ServiceFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"Stopped. The data stays in {folder}, for the next time.", flush=True)
    return 0


def _guide(folder: Path, services: Stack, sample: Sample) -> Iterator[str]:
    product, other = sample.products[:2]
    items = [{"product_id": product["id"], "qty": 2}, {"product_id": other["id"], "qty": 8}]
    # Keys of an earlier run are remembered for a week.
    key = f"try-{time.time_ns() // 1_000_000}"
    job = services.orchestrator.url + JOB
    order = {"customer_id": sample.customer["id"], "items": items, "idempotency_key": key}
    short = {
        **order,
        "items": [{"product_id": product["id"], "qty": 1_000_000}],
        "idempotency_key": f"{key}-short",
    }

    yield ""
    for service in services:
        yield f"  {service.name:<13} {service.url}   {service.url}/docs   {service.admin_url}/metrics"
    yield ""
    for service in services:
        if service.port != PORTS[service.name][0]:
            yield f"  Port {PORTS[service.name][0]} is taken, so {service.name} is on {service.port}."
    yield f"  Data and logs are in {folder}."
    yield ""
    yield f"  customer {sample.customer['id']:<4} {sample.customer['name']}"
    for item in sample.products:
        price = money(item["price_cents"], item["currency"])
        yield f"  product {item['id']:<4} {item['sku']:<12} {price:>14}   {item['available']} available"
    yield ""
    yield "Validate the customer, create the order and confirm it, in one call:"
    yield ""
    yield from _curl(job, order)
    yield ""
    yield "Send it again: the same order comes back, with Idempotent-Replayed: true. A shortage:"
    yield ""
    yield from _curl(job, short)
    yield ""
    yield "What became of them:"
    yield ""
    yield f"curl -s {services.orchestrator.url}/orchestrator/sagas"
    yield ""
    yield "Ctrl-C stops everything."


def _curl(url: str, body: dict[str, Any]) -> Iterator[str]:
    yield f"curl -i {url} \\"
    yield "  -H 'Content-Type: application/json' \\"
    yield f"  -d '{json.dumps(body)}'"


if __name__ == "__main__":
    sys.exit(run(main(Path(sys.argv[1]).resolve() if sys.argv[1:] else DEFAULT_FOLDER)))
