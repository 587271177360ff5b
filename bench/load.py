"""The closed loop, and a request of it over HTTP."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from bench.machine import cpu_seconds
from bench.operations import Operation, Site, Subject

WARM_UP = 0.125
"""Part of the measured seconds that goes before them, uncounted."""

Send = Callable[[Subject], Awaitable[object]]


class Failed(Exception):  # noqa: N818 - says what was answered
    """A request did not get the answer it must get."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How it went.

    `answers` are all of them, those of the warm-up included; `errors` counts the others by what they
    were; `cpu_ms` is what each process took of the CPU for an answer.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    answers: int
    errors: dict[str, int]
    cpu_ms: dict[str, float]


async def closed_loop(
    send: Send, subjects: Iterator[Subject], clients: int, seconds: float, processes: Mapping[str, int]
) -> Measured:
    """Let each of `clients` send one request after the other, for `seconds` or until no subject is left.

    The rate counts what was answered within these seconds, the percentiles everything that was
    answered since they began.
    """
    cpu = cpu_seconds(processes)
    begins = perf_counter() + seconds * WARM_UP
    ends = begins + seconds
    answered: list[tuple[float, float]] = []
    errors: Counter[str] = Counter()

    async def client() -> None:
        while (sent := perf_counter()) < ends and (subject := next(subjects, None)) is not None:
            try:
                await send(subject)
            except Failed as failed:
                errors[str(failed)] += 1
            else:
                answered.append((perf_counter(), sent))

    await asyncio.gather(*(client() for _ in range(clients)))
    cpu_taken = {name: now - cpu[name] for name, now in cpu_seconds(processes).items()}
    ends = min(ends, answered[-1][0]) if answered else ends
    within = sum(begins <= at <= ends for at, _ in answered)
    durations = sorted(at - sent for at, sent in answered if at >= begins)
    return Measured(
        rate=round(within / (ends - begins), 1) if ends > begins else 0.0,
        p50_ms=_percentile_ms(durations, 0.50),
        p99_ms=_percentile_ms(durations, 0.99),
        answers=len(answered),
        errors=dict(errors),
        cpu_ms={name: round(1000 * taken / max(1, len(answered)), 2) for name, taken in cpu_taken.items()},
    )


def _percentile_ms(ordered: list[float], part: float) -> float:
    return round(ordered[int(part * (len(ordered) - 1))] * 1000, 2) if ordered else 0.0


async def call(
    http: aiohttp.ClientSession, operation: Operation, site: Site, subject: Subject, key: str
) -> bytes:
    """Send a request and return the body of its answer.

    Raises:
        Failed: the answer has another status than it must have, or there is none.

    """
    request = operation.request(site, subject)
    headers = {"Idempotency-Key": key} if request.method == "POST" else {}
    try:
        async with http.request(request.method, request.url, json=request.body, headers=headers) as response:
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Failed(type(error).__name__) from error
    if response.status != operation.status:
        raise Failed(f"{response.status} {json.loads(body).get('code')}")
    return body
