"""The orchestrator's API: from the request to the desk, a query or the driver, and back."""

from aiohttp import web

from chassis.database import DATABASE
from chassis.http import Answer, One
from chassis.pagination import Page
from chassis.routes import Routes
from orchestrator import desk, failpoints, queries
from orchestrator.answers import JOB_MEMBERS, JOB_PATH, saga_url
from orchestrator.driver import DRIVER
from orchestrator.errors import KNOWN, SagaNeedsAttention, SagaNotFound, SagaNotRetryable, SagaUnfinished
from orchestrator.schemas import AcceptedView, CreateAndConfirmOrder, FindSagas, JobView, SagaId, SagaView

routes = Routes("orchestrator")


@routes.post(
    JOB_PATH,
    scope="sagas:write",
    answers={201: JobView, 202: AcceptedView},
    refuses=(*KNOWN.values(), SagaUnfinished, SagaNeedsAttention),
    key="required",
    creates="saga_id",
    members=JOB_MEMBERS,
)
async def create_and_confirm_order(request: web.Request, body: CreateAndConfirmOrder) -> Answer:
    """Validate the customer, create the order and confirm it, exactly once.

    Whatever crashes in between: repeat the request with the same idempotency key to get its one
    answer. A refused confirmation is compensated before you are told. With `Prefer: respond-async`
    the answer is 202 at once, with the address of the saga to look at.
    """
    await failpoints.REQUEST_PARSED()
    return await desk.create_and_confirm(request, body)


@routes.get("/orchestrator/sagas", scope="sagas:read", answers={200: Page[SagaView]})
async def find_sagas(request: web.Request, query: FindSagas) -> Answer:
    """List sagas, newest first."""
    async with request.app[DATABASE].read() as session:
        rows = await queries.find_sagas(session, query)
    return Answer.of(Page.of(rows, query, SagaView.model_validate, lambda saga: (saga.created_at, saga.id)))


@routes.get(
    "/orchestrator/sagas/{saga_id}", scope="sagas:read", answers={200: One[SagaView]}, refuses=(SagaNotFound,)
)
async def get_saga(request: web.Request, saga_id: SagaId) -> Answer:
    """Show one saga: its state, its steps with times and attempts, its result."""
    async with request.app[DATABASE].read() as session:
        saga = await queries.get_saga(session, saga_id)
    return Answer.of(One[SagaView](data=SagaView.model_validate(saga)))


@routes.post(
    "/orchestrator/sagas/{saga_id}/retry",
    scope="sagas:write",
    answers={202: One[SagaView]},
    refuses=(SagaNotFound, SagaNotRetryable),
)
async def retry_saga(request: web.Request, saga_id: SagaId) -> Answer:
    """Let a saga that needs attention go on from the step it could not finish."""
    saga = await request.app[DRIVER].retry(saga_id)
    view = One[SagaView](data=SagaView.model_validate(saga))
    return Answer.of(view, 202, location=saga_url(saga.id))
