"""The business counters of the services, as `/metrics` shows them."""

from collections.abc import Iterator

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from dev import calls
from dev.stack import Stack

PREFIX = "b2b_"
Counters = dict[tuple[str, str], float]
"""Values by service and sample, for instance `("orders", "b2b_orders_total{outcome=created}")`."""


async def counters(http: aiohttp.ClientSession, services: Stack) -> Counters:
    """Read them from the admin ports."""
    return {
        (service.name, sample): value
        for service in services
        for sample, value in _samples((await calls.get(http, f"{service.admin_url}/metrics")).body)
    }


def _samples(exposition: bytes) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(exposition.decode()):
        if family.type != "counter" or not family.name.startswith(PREFIX):
            continue
        for sample in family.samples:
            if sample.name.endswith("_total"):  # not the time of its creation
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if value)
                yield f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value
