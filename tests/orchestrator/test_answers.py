import json
from typing import Any

import pytest

from chassis.errors import CONTENT_TYPE, Problem
from chassis.http import Answer
from orchestrator import answers
from orchestrator.errors import KNOWN, PeerRefusal
from orchestrator.models import Saga, Status, Step

SAGA_ID = "0191f3a1c3d27c5b8d6f2a4b7e9c1d20"
URL = f"/orchestrator/sagas/{SAGA_ID}"
ITEM = {
    "product_id": 3,
    "sku": "DESK-OAK",
    "name": "Oak desk",
    "qty": 2,
    "unit_price_cents": 129900,
    "subtotal_cents": 259800,
}
ORDER = {
    "id": 101,
    "order_number": "ORD-00000101",
    "status": "CONFIRMED",
    "currency": "USD",
    "total_cents": 259800,
    "items": [ITEM],
    "created_at": "2026-01-31T12:00:00.000001Z",
    "confirmed_at": "2026-01-31T12:00:00.000000Z",
}
CUSTOMER = {"id": 7, "name": "ACME Corporation", "email": "ops@acme.com", "phone": None}


def a_saga(status: Status, step: Step | None = None, **fields: Any) -> Saga:
    return Saga(id=SAGA_ID, status=status, step=step, correlation_id="req-456", **fields)


def refusal(code: str, step: Step, **members: Any) -> dict[str, Any]:
    return {"code": code, "members": members, "step": step}


def test_success_is_the_customer_and_the_confirmed_order() -> None:
    answer = answers.final_answer(a_saga(Status.SUCCEEDED, customer=CUSTOMER, order=ORDER))

    assert (answer.status, answer.content_type) == (201, "application/json")
    assert answer.headers == {"Location": URL}
    assert json.loads(answer.body) == {
        "success": True,
        "correlation_id": "req-456",
        "saga_id": SAGA_ID,
        "data": {"customer": CUSTOMER, "order": ORDER},
    }


def test_the_same_saga_has_the_same_bytes() -> None:
    first = answers.final_answer(a_saga(Status.SUCCEEDED, customer=CUSTOMER, order=ORDER))
    second = answers.final_answer(a_saga(Status.SUCCEEDED, customer=CUSTOMER, order=ORDER))

    assert first == second


@pytest.mark.parametrize("kind", KNOWN.values(), ids=lambda kind: kind.code)
def test_every_refusal_is_told_in_our_words_with_its_own_status(kind: type[PeerRefusal]) -> None:
    saga = a_saga(Status.FAILED, refusal=refusal(kind.code, Step.CREATE_ORDER))

    answer = answers.final_answer(saga)

    problem = problem_in(answer)
    assert answer.status == problem["status"] == kind.status
    assert problem["code"] == kind.code
    assert problem["title"] == kind.title
    assert problem["detail"] == f"{kind.title}."
    assert (problem["step"], problem["compensated"]) == ("create_order", False)


def test_the_members_of_a_refusal_are_passed_on() -> None:
    shortages = [{"product_id": 3, "sku": "DESK-OAK", "requested": 2, "available": 1}]
    saga = a_saga(
        Status.FAILED, refusal=refusal("stock.insufficient", Step.CREATE_ORDER, shortages=shortages)
    )

    problem = problem_in(answers.final_answer(saga))

    assert problem["shortages"] == shortages


def test_a_refusal_needs_a_new_key_and_tells_whether_it_was_compensated() -> None:
    saga = a_saga(Status.COMPENSATED, refusal=refusal("order.expired", Step.CONFIRM_ORDER))

    answer = answers.final_answer(saga)

    assert answer.headers == {"Location": URL}
    assert problem_in(answer) | {"trace_id": "", "title": "", "detail": "", "type": ""} == {
        "type": "",
        "title": "",
        "status": 409,
        "detail": "",
        "instance": "/orchestrator/create-and-confirm-order",
        "code": "order.expired",
        "errors": [],
        "correlation_id": "req-456",
        "trace_id": "",
        "retryable": False,
        "success": False,
        "step": "confirm_order",
        "compensated": True,
        "retry_needs_new_key": True,
        "saga_id": SAGA_ID,
        "saga": URL,
    }


def test_an_unfinished_saga_says_where_to_look_and_when_to_ask_again() -> None:
    problem = answers.unfinished(a_saga(Status.RUNNING, Step.CREATE_ORDER))

    assert (problem.status, problem.code) == (503, "saga.unfinished")
    assert problem.headers == {"Location": URL, "Retry-After": "5"}
    assert URL in problem.detail
    assert problem.members == members_of_an_open_saga(step="create_order")


def test_a_saga_that_needs_attention_says_so_and_is_worth_another_try() -> None:
    saga = a_saga(
        Status.NEEDS_ATTENTION, Step.CANCEL_ORDER, refusal=refusal("order.expired", Step.CONFIRM_ORDER)
    )

    problem = answers.unfinished(saga)

    assert (problem.status, problem.code, problem.retryable) == (503, "saga.needs_attention", True)
    assert problem.headers == {"Location": URL, "Retry-After": "60"}
    assert problem.members == members_of_an_open_saga(step="confirm_order")


# --- what is taken from a peer ------------------------------------------------------------------


def test_nothing_of_a_peers_words_is_taken() -> None:
    told = {
        "code": "stock.insufficient",
        "title": "SELECT",
        "detail": "SELECT stock FROM products",
        "errors": [{"pointer": "#", "detail": "SELECT"}],
        "correlation_id": "SELECT",
        "shortages": [{"product_id": 3, "sku": "DESK-OAK", "requested": 2, "available": 1}],
        "note": "SELECT",
    }

    taken = PeerRefusal.of(told)

    assert taken.members == {"shortages": told["shortages"]}
    assert "SELECT" not in rendered(taken)


@pytest.mark.parametrize(
    "shortages",
    [
        None,
        "SELECT",
        [{"product_id": 3}],
        [{"product_id": "3", "sku": "A", "requested": 2, "available": 1}],
        [{"product_id": 3, "sku": "A", "requested": 2, "available": 1, "why": "SELECT"}],
    ],
)
def test_a_member_that_is_not_what_it_should_be_is_left_out(shortages: Any) -> None:
    taken = PeerRefusal.of({"code": "stock.insufficient", "shortages": shortages})

    assert taken.code == "stock.insufficient"
    assert "SELECT" not in rendered(taken)
    assert "why" not in rendered(taken)


def test_a_code_that_is_not_known_here_is_a_refusal_all_the_same() -> None:
    taken = PeerRefusal.of({"code": "order.on_tuesdays_only", "detail": "SELECT"})

    assert (taken.status, taken.code) == (409, "saga.refused")
    assert "SELECT" not in rendered(taken)


def problem_in(answer: Answer) -> Any:
    assert answer.content_type == CONTENT_TYPE
    return json.loads(answer.body)


def rendered(problem: Problem) -> str:
    return problem.render(instance="/", correlation_id="req-456", trace_id="1" * 32).decode()


def members_of_an_open_saga(*, step: str) -> dict[str, Any]:
    return {
        "success": False,
        "step": step,
        "compensated": False,
        "retry_needs_new_key": False,
        "saga_id": SAGA_ID,
        "saga": URL,
    }
