"""What the closed loop counts."""

import asyncio
from collections import Counter
from itertools import repeat

from bench.load import Failed, closed_loop
from bench.operations import Subject


async def test_the_loop_ends_when_the_subjects_are_used_up() -> None:
    sent: Counter[Subject] = Counter()

    async def send(subject: Subject) -> None:
        sent[subject] += 1
        await asyncio.sleep(0)

    subjects = [Subject(number, 0) for number in range(100)]
    measured = await closed_loop(send, iter(subjects), clients=8, seconds=60, processes={})

    assert sent == Counter(subjects)
    assert measured.answers == 100
    assert measured.errors == {}


async def test_every_client_sends_one_request_at_a_time() -> None:
    at_once, most = 0, 0

    async def send(_subject: Subject) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1

    measured = await closed_loop(send, repeat(Subject(1, 1)), clients=5, seconds=0.1, processes={})

    assert most == 5
    assert measured.answers >= 5
    assert 1 <= measured.p50_ms <= measured.p99_ms


async def test_failures_are_counted_by_what_they_were_and_never_as_answers() -> None:
    async def send(subject: Subject) -> None:
        await asyncio.sleep(0)
        if subject.product_id % 2:
            raise Failed("503 db.contended")

    subjects = (Subject(number, 0) for number in range(10))
    measured = await closed_loop(send, subjects, clients=2, seconds=60, processes={})

    assert measured.answers == 5
    assert measured.errors == {"503 db.contended": 5}
