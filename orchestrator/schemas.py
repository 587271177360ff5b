"""What goes over the wire."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, TypeAdapter

from chassis import correlation
from chassis.http import Id, Principal, Schema, Timestamp, View
from chassis.idempotency import Keyed
from chassis.pagination import PageQuery
from orchestrator.models import Status, Step

MAX_ITEMS = 200
MAX_QTY = 1_000_000

SagaId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", examples=["0191f3a1c3d27c5b8d6f2a4b7e9c1d20"])]
CorrelationId = Annotated[str, Field(pattern=f"^{correlation.PATTERN}$", examples=["req-456"])]


class NewItem(Schema):
    """A product and how much of it."""

    product_id: Id
    qty: Annotated[int, Field(ge=1, le=MAX_QTY, examples=[2])]


def _merged(items: list[NewItem]) -> list[NewItem]:
    """Make one line of all the lines of a product, as orders would, so that its limit is met here."""
    quantities: dict[int, int] = {}
    for item in items:
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.qty
    if max(quantities.values()) > MAX_QTY:
        raise ValueError(f"The lines of one product should add up to at most {MAX_QTY}")
    return [NewItem(product_id=product_id, qty=qty) for product_id, qty in quantities.items()]


class CreateAndConfirmOrder(Keyed):
    """The main job. The idempotency key may come as a header instead."""

    customer_id: Id
    items: Annotated[list[NewItem], Field(min_length=1, max_length=MAX_ITEMS), AfterValidator(_merged)]
    correlation_id: CorrelationId | None = None
    purchase_order_number: Annotated[
        str | None, Field(pattern=r"^[\x21-\x7e]{1,64}$", examples=["PO-2026-0042"])
    ] = None


class CustomerView(View):
    """The customer, as validated."""

    id: Id
    name: Annotated[str, Field(examples=["ACME Corporation"])]
    email: Annotated[str, Field(examples=["ops@acme.com"])]
    phone: Annotated[str | None, Field(examples=["+1234567890"])]


class ItemView(View):
    """A line; SKU, name and price are those of the moment the order was created."""

    product_id: Id
    sku: Annotated[str, Field(examples=["DESK-OAK"])]
    name: Annotated[str, Field(examples=["Oak desk"])]
    qty: Annotated[int, Field(examples=[2])]
    unit_price_cents: Annotated[int, Field(examples=[129900])]
    subtotal_cents: Annotated[int, Field(examples=[259800])]


class OrderView(View):
    """The order."""

    id: Id
    order_number: Annotated[str, Field(examples=["ORD-00000101"])]
    status: Annotated[str, Field(examples=["CONFIRMED"])]
    currency: Annotated[str, Field(examples=["USD"])]
    total_cents: Annotated[int, Field(examples=[259800])]
    items: list[ItemView]
    created_at: Timestamp
    confirmed_at: Timestamp | None


class JobResult(View):
    """Who ordered and what."""

    customer: CustomerView
    order: OrderView


class JobView(View):
    """A main job that succeeded."""

    success: Annotated[bool, Field(examples=[True])] = True
    correlation_id: CorrelationId
    saga_id: SagaId
    data: JobResult


class StepView(View):
    """What became of a step: `done`, `refused` or `unavailable`; `code` says why."""

    step: Step
    outcome: Annotated[str, Field(examples=["done"])]
    attempts: Annotated[int, Field(examples=[1])]
    started_at: Timestamp
    finished_at: Timestamp
    code: Annotated[str | None, Field(examples=["stock.insufficient"])]


class SagaView(View):
    """A saga; `step` is the one it takes next."""

    id: SagaId
    status: Status
    step: Step | None
    steps: list[StepView]
    attempts: Annotated[int, Field(description="times it was taken up", examples=[1])]
    attention: Annotated[str | None, Field(description="why an operator is needed", examples=[None])]
    request: dict[str, Any]
    customer: CustomerView | None
    order: OrderView | None
    refusal: Annotated[dict[str, Any] | None, Field(description="the refusal that ended it")]
    principal: Principal
    correlation_id: CorrelationId
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None


class AcceptedView(View):
    """A main job that goes on without the client."""

    success: None = None
    correlation_id: CorrelationId
    saga_id: SagaId


class FindSagas(PageQuery):
    """Filters, ANDed."""

    position_type: ClassVar[TypeAdapter[Any]] = TypeAdapter(tuple[datetime, SagaId])

    status: Annotated[Status | None, Field(description="only sagas in this state")] = None
    correlation_id: Annotated[
        CorrelationId | None, Field(description="only sagas started with this correlation id")
    ] = None
    trace_id: Annotated[
        str | None, Field(pattern="^[0-9a-f]{32}$", description="only sagas started in this trace")
    ] = None
