"""What a saga tells its client: once, when it ended, kept with its key; until then, where to look."""

from typing import Any

from chassis import correlation
from chassis.errors import CONTENT_TYPE, Problem
from chassis.http import Answer
from orchestrator.errors import KNOWN, PeerRefusal, SagaNeedsAttention, SagaUnfinished
from orchestrator.models import Saga, Status
from orchestrator.schemas import JobResult, JobView

JOB_PATH = "/orchestrator/create-and-confirm-order"
JOB_MEMBERS = {"success": False, "step": None, "compensated": False, "retry_needs_new_key": False}
"""Members of every problem of the main job, unless a saga knows better."""


def saga_url(saga_id: str) -> str:
    """Where the saga can be looked at."""
    return f"/orchestrator/sagas/{saga_id}"


def final_answer(saga: Saga) -> Answer:
    """The answer of a saga that is over."""
    if saga.status == Status.SUCCEEDED:
        result = JobResult.model_validate({"customer": saga.customer, "order": saga.order})
        view = JobView(correlation_id=saga.correlation_id, saga_id=saga.id, data=result)
        return Answer.of(view, 201, location=saga_url(saga.id))
    refusal = saga.refusal or {}
    kind = KNOWN.get(refusal.get("code", ""), PeerRefusal)
    members = _members(saga) | refusal.get("members", {}) | {"retry_needs_new_key": True}
    problem = kind(f"{kind.title}.", **members)
    body = problem.render(
        instance=JOB_PATH, correlation_id=saga.correlation_id, trace_id=correlation.trace_id()
    )
    return Answer(problem.status, body, {"Location": saga_url(saga.id)}, CONTENT_TYPE)


def unfinished(saga: Saga) -> Problem:
    """Why there is no answer yet."""
    url = {"Location": saga_url(saga.id)}
    if saga.status == Status.NEEDS_ATTENTION:
        detail = f"An operator has to look at {saga_url(saga.id)}; repeat with the same key later."
        return SagaNeedsAttention(detail, headers=url, **_members(saga))
    detail = f"The work goes on without you: look at {saga_url(saga.id)} or repeat with the same key."
    return SagaUnfinished(detail, headers=url, **_members(saga))


def _members(saga: Saga) -> dict[str, Any]:
    return JOB_MEMBERS | {
        "saga_id": saga.id,
        "saga": saga_url(saga.id),
        "step": (saga.refusal or {}).get("step", saga.step),
        "compensated": saga.status == Status.COMPENSATED,
    }
