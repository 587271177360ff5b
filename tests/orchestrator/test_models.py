from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.models import NEXT, REFUSED, Saga, Status, Step

CUSTOMER = {"id": 7, "name": "ACME Corporation"}
CREATED = {"id": 101, "status": "CREATED"}
CONFIRMED = {"id": 101, "status": "CONFIRMED"}
CANCELED = {"id": 101, "status": "CANCELED"}
SHORT = {"code": "stock.insufficient", "members": {"shortages": []}}
EXPIRED = {"code": "order.expired", "members": {}}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def a_saga(**fields: Any) -> Saga:
    given = {"id": "5" * 32, "status": Status.RUNNING, "step": Step.VALIDATE_CUSTOMER, "steps": []}
    return Saga(**{**given, "attempts": 1, **fields})


def a_saga_before(step: Step) -> Saga:
    """A saga whose next step this is."""
    status = Status.COMPENSATING if step == Step.CANCEL_ORDER else Status.RUNNING
    return a_saga(status=status, step=step)


def test_a_saga_validates_the_customer_creates_the_order_and_confirms_it() -> None:
    saga = a_saga()

    taken = []
    for snapshot in (CUSTOMER, CREATED, CONFIRMED):
        taken.append(saga.step)
        saga.done(snapshot)

    assert taken == [Step.VALIDATE_CUSTOMER, Step.CREATE_ORDER, Step.CONFIRM_ORDER]
    assert (saga.status, saga.step) == (Status.SUCCEEDED, None)
    assert (saga.customer, saga.order, saga.refusal) == (CUSTOMER, CONFIRMED, None)


@pytest.mark.parametrize("step", [Step.VALIDATE_CUSTOMER, Step.CREATE_ORDER])
def test_a_refusal_before_there_is_an_order_ends_the_saga(step: Step) -> None:
    saga = a_saga_before(step)

    saga.refused(SHORT)

    assert (saga.status, saga.step) == (Status.FAILED, None)
    assert saga.refusal == {**SHORT, "step": step}


def test_a_refused_confirmation_is_compensated() -> None:
    saga = a_saga_before(Step.CONFIRM_ORDER)

    saga.refused(EXPIRED)
    compensating = (saga.status, saga.step)
    saga.done(CANCELED)

    assert compensating == (Status.COMPENSATING, Step.CANCEL_ORDER)
    assert (saga.status, saga.step) == (Status.COMPENSATED, None)
    assert saga.order == CANCELED
    assert saga.refusal == {**EXPIRED, "step": Step.CONFIRM_ORDER}


def test_a_refused_compensation_needs_attention_and_keeps_the_refusal_it_came_from() -> None:
    saga = a_saga_before(Step.CONFIRM_ORDER)
    saga.refused(EXPIRED)

    saga.refused({"code": "order.cancel_window_closed", "members": {}})

    assert (saga.status, saga.step) == (Status.NEEDS_ATTENTION, Step.CANCEL_ORDER)
    assert saga.attention == "The compensation was refused: order.cancel_window_closed."
    assert saga.refusal == {**EXPIRED, "step": Step.CONFIRM_ORDER}


@pytest.mark.parametrize("step", list(Step))
def test_a_saga_that_was_given_up_goes_on_where_it_was(step: Step) -> None:
    saga = a_saga_before(step)
    before = saga.status
    saga.attempts = 21

    saga.give_up("No end after 20 attempts.")
    given_up = (saga.status, saga.step, saga.attention)
    saga.retry()

    assert given_up == (Status.NEEDS_ATTENTION, step, "No end after 20 attempts.")
    assert (saga.status, saga.step, saga.attention, saga.attempts) == (before, step, None, 0)


def test_every_step_leads_somewhere_whether_done_or_refused() -> None:
    assert set(NEXT) == set(REFUSED) == set(Step)


@pytest.mark.parametrize(
    ("status", "is_over"),
    [
        (Status.RUNNING, False),
        (Status.COMPENSATING, False),
        (Status.NEEDS_ATTENTION, False),
        (Status.SUCCEEDED, True),
        (Status.FAILED, True),
        (Status.COMPENSATED, True),
    ],
)
def test_a_saga_is_over_when_it_has_its_answer(
    status: Status,
    is_over: bool,  # noqa: FBT001 - a case
) -> None:
    assert a_saga(status=status).is_over is is_over


def test_nothing_moves_a_saga_that_is_over() -> None:
    saga = a_saga(status=Status.SUCCEEDED, step=None, order=CONFIRMED)

    saga.done(CANCELED)
    saga.refused(EXPIRED)

    assert (saga.status, saga.step, saga.order, saga.refusal) == (Status.SUCCEEDED, None, CONFIRMED, None)


def test_a_step_has_one_key_whoever_takes_it_and_no_two_steps_share_one() -> None:
    keys = {step: a_saga(attempts=1).key(step) for step in Step}

    assert {step: a_saga(attempts=9).key(step) for step in Step} == keys
    assert len(set(keys.values())) == len(Step)
    assert keys[Step.CREATE_ORDER] == f"{'5' * 32}:create_order"


def test_a_step_that_is_retried_after_a_refusal_has_another_key_and_the_other_steps_keep_theirs() -> None:
    saga = a_saga_before(Step.CANCEL_ORDER)
    keys = {step: saga.key(step) for step in Step}
    record(saga, "unavailable", minute=0)
    unavailable = saga.key(Step.CANCEL_ORDER)

    record(saga, "refused", minute=1, code="order.cancel_window_closed")

    assert unavailable == keys[Step.CANCEL_ORDER]
    assert saga.key(Step.CANCEL_ORDER) == f"{'5' * 32}:cancel_order:2"
    assert saga.key(Step.CREATE_ORDER) == keys[Step.CREATE_ORDER]


def test_a_saga_whose_lease_was_given_back_is_paused() -> None:
    assert a_saga(lease_until=NOON, resume_at=NOON + timedelta(seconds=2)).is_paused
    assert not a_saga(lease_until=NOON, resume_at=NOON).is_paused


def test_there_is_no_order_id_before_there_is_an_order() -> None:
    assert a_saga().order_id is None
    assert a_saga(order=CREATED).order_id == 101


# --- the record of steps ------------------------------------------------------------------------


def record(saga: Saga, outcome: str, *, minute: int, attempts: int = 1, code: str | None = None) -> None:
    """Record a step that began in this minute of the noon and took a minute."""
    started_at = NOON + timedelta(minutes=minute)
    saga.record(outcome, attempts, started_at, started_at + timedelta(minutes=1), code)


def test_each_step_is_recorded_with_its_times_and_attempts() -> None:
    saga = a_saga()

    record(saga, "done", minute=0)
    saga.done(CUSTOMER)
    record(saga, "refused", minute=1, attempts=3, code="stock.insufficient")

    assert saga.steps == [
        {
            "step": "validate_customer",
            "outcome": "done",
            "attempts": 1,
            "started_at": "2026-01-31T12:00:00+00:00",
            "finished_at": "2026-01-31T12:01:00+00:00",
            "code": None,
        },
        {
            "step": "create_order",
            "outcome": "refused",
            "attempts": 3,
            "started_at": "2026-01-31T12:01:00+00:00",
            "finished_at": "2026-01-31T12:02:00+00:00",
            "code": "stock.insufficient",
        },
    ]


def test_failures_of_a_step_and_its_success_share_one_entry() -> None:
    saga = a_saga_before(Step.CREATE_ORDER)

    record(saga, "unavailable", minute=0, attempts=3, code="peer.timeout")
    record(saga, "unavailable", minute=5, attempts=2, code="peer.unavailable")
    record(saga, "done", minute=9)

    (entry,) = saga.steps
    assert (entry["outcome"], entry["attempts"], entry["code"]) == ("done", 6, None)
    assert entry["started_at"] == "2026-01-31T12:00:00+00:00"
    assert entry["finished_at"] == "2026-01-31T12:10:00+00:00"


def test_a_step_that_was_refused_and_is_retried_has_another_entry() -> None:
    saga = a_saga_before(Step.CANCEL_ORDER)

    record(saga, "refused", minute=0, code="order.cancel_window_closed")
    record(saga, "done", minute=5)

    assert [entry["outcome"] for entry in saga.steps] == ["refused", "done"]


def test_a_failing_step_does_not_hide_the_one_before() -> None:
    saga = a_saga()

    record(saga, "unavailable", minute=0)
    record(saga, "done", minute=1)
    saga.done(CUSTOMER)
    record(saga, "unavailable", minute=2)

    assert [(entry["step"], entry["outcome"]) for entry in saga.steps] == [
        ("validate_customer", "done"),
        ("create_order", "unavailable"),
    ]
