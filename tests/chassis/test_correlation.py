import asyncio

import pytest
from opentelemetry import context as otel_context

from chassis import correlation
from chassis.telemetry import traces


@pytest.mark.parametrize("value", ["req-456", "a", "x" * 128, "A.b_c:d-9"])
def test_what_may_be_a_correlation_id(value: str) -> None:
    assert correlation.is_valid(value)


@pytest.mark.parametrize("value", ["", "x" * 129, "two words", "line\n", "é", "a/b", "a;b", '"a"'])
def test_what_may_not(value: str) -> None:
    assert not correlation.is_valid(value)


def test_the_correlation_id_is_the_trace_id_unless_one_is_carried() -> None:
    with traces.tracer.start_as_current_span("work"):
        assert correlation.current() == correlation.trace_id()
        assert correlation.current(correlation.carried("req-1")) == "req-1"


def test_what_is_carried_but_may_not_be_one_is_left_out() -> None:
    with traces.tracer.start_as_current_span("work"):
        assert correlation.current(correlation.carried("two words")) == correlation.trace_id()


async def test_an_adopted_correlation_id_reaches_what_the_task_starts_and_no_other_task() -> None:
    async def started() -> str:
        return correlation.current()

    async def adopting(value: str) -> tuple[str, str]:
        correlation.adopt(value)
        await asyncio.sleep(0)
        return correlation.current(), await asyncio.create_task(started())

    before = otel_context.get_current()
    found = await asyncio.gather(adopting("req-1"), adopting("req-2"))

    assert list(found) == [("req-1", "req-1"), ("req-2", "req-2")]
    assert otel_context.get_current() == before
