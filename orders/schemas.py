"""What goes over the wire."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, WithJsonSchema

from chassis import correlation
from chassis.http import Id, Principal, Schema, Timestamp, Update, View
from chassis.idempotency import Keyed
from chassis.pagination import PageQuery
from orders.models import MAX_STOCK, ORDER_NUMBER, Movement, Status

MAX_ITEMS = 200
MAX_QTY = 1_000_000
# MAX_ITEMS lines of MAX_QTY units at this price still fit a BIGINT.
MAX_PRICE_CENTS = 10_000_000_000

Sku = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$", examples=["DESK-OAK"])]
ProductName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"\S"),
    Field(examples=["Oak desk"]),
]
Cents = Annotated[int, Field(ge=0, le=MAX_PRICE_CENTS, examples=[129900])]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["USD"], description="ISO 4217 code")]
Stock = Annotated[int, Field(ge=0, le=MAX_STOCK, examples=[25])]
Qty = Annotated[int, Field(ge=1, le=MAX_QTY, examples=[2])]
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"\S"),
    Field(examples=["Counted again"]),
]
PurchaseOrderNumber = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$", examples=["PO-2026-0042"])]


# --- products -----------------------------------------------------------------------------------


class CreateProduct(Keyed):
    """A new product."""

    sku: Sku
    name: ProductName
    price_cents: Cents
    currency: Currency = "USD"
    stock: Stock = 0


class UpdateProduct(Update):
    """The fields to change; stock changes through adjust-stock."""

    name: ProductName = ""
    price_cents: Cents = 0
    is_active: bool = True


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise ValueError("Input should not be 0")
    return delta


class AdjustStock(Keyed):
    """Units counted in (positive) or out (negative), and why."""

    delta: Annotated[
        int,
        Field(ge=-MAX_STOCK, le=MAX_STOCK, examples=[10], json_schema_extra={"not": {"const": 0}}),
        AfterValidator(_not_zero),
    ]
    reason: Reason


class FindProducts(PageQuery):
    """Filters, ANDed."""

    search: Annotated[str | None, Field(min_length=1, max_length=200, description="part of SKU or name")] = (
        None
    )
    is_active: Annotated[
        bool | None, Field(description="only products that are sold, or only the others")
    ] = None


class ProductView(View):
    """A product; `available` = `stock` - `reserved`."""

    id: Id
    sku: Sku
    name: ProductName
    price_cents: Cents
    currency: Currency
    stock: Stock
    reserved: Annotated[int, Field(examples=[3])]
    available: Annotated[int, Field(examples=[22])]
    is_active: bool
    created_at: Timestamp
    updated_at: Timestamp


# --- orders -------------------------------------------------------------------------------------


class NewItem(Schema):
    """A product and how much of it."""

    product_id: Id
    qty: Qty


def _merged(items: list[NewItem]) -> list[NewItem]:
    """Make one line of all the lines of a product, where the first of them stands."""
    quantities: dict[int, int] = {}
    for item in items:
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.qty
    if max(quantities.values()) > MAX_QTY:
        raise ValueError(f"The lines of one product should add up to at most {MAX_QTY}")
    return [NewItem(product_id=product_id, qty=qty) for product_id, qty in quantities.items()]


class CreateOrder(Keyed):
    """A new order; the server takes prices and names from its products."""

    customer_id: Id
    items: Annotated[list[NewItem], Field(min_length=1, max_length=MAX_ITEMS), AfterValidator(_merged)]
    purchase_order_number: PurchaseOrderNumber | None = None

    def quantities(self) -> dict[int, int]:
        """Quantities by product id."""
        return {item.product_id: item.qty for item in self.items}


class ConfirmOrder(Keyed):
    """Nothing: the path says which order."""


class CancelOrder(Keyed):
    """Why the order is canceled."""

    reason: Reason | None = None


def _start(value: Any) -> Any:  # noqa: ANN401 - whatever the query string has
    """Take a date as its first moment, in UTC."""
    return _moment(value, timedelta())


def _end(value: Any) -> Any:  # noqa: ANN401 - whatever the query string has
    """The first moment after `value`: a date includes its whole day, a time itself."""
    return _moment(value, timedelta(days=1), timedelta(microseconds=1))


def _moment(value: Any, day: timedelta, instant: timedelta = timedelta()) -> Any:  # noqa: ANN401 - as above
    try:
        if len(value) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(value), time(), UTC) + day
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC) + instant
    except (ValueError, OverflowError):
        raise ValueError("Input should be a date or an RFC 3339 time") from None


_MOMENT = WithJsonSchema(
    {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}
)


class FindOrders(PageQuery):
    """Filters, ANDed."""

    position_type: ClassVar[TypeAdapter[Any]] = TypeAdapter(tuple[datetime, Id])

    status: Annotated[Status | None, Field(description="only orders in this state")] = None
    customer_id: Annotated[Id | None, Field(description="only orders of this customer")] = None
    correlation_id: Annotated[
        str | None,
        Field(pattern=f"^{correlation.PATTERN}$", description="only orders made with this correlation id"),
    ] = None
    order_number: Annotated[
        str | None, Field(pattern=ORDER_NUMBER, description="only the order with this number")
    ] = None
    from_: Annotated[
        datetime | None,
        BeforeValidator(_start),
        _MOMENT,
        Field(alias="from", description="created then or later"),
    ] = None
    to: Annotated[
        datetime | None,
        BeforeValidator(_end),
        _MOMENT,
        Field(description="created then or earlier; a date includes its day"),
    ] = None


class ItemView(View):
    """A line; SKU, name and price are those of the moment the order was created."""

    product_id: Id
    sku: Sku
    name: ProductName
    qty: Qty
    unit_price_cents: Cents
    subtotal_cents: Annotated[int, Field(examples=[259800])]


class OrderView(View):
    """An order."""

    id: Id
    order_number: Annotated[str, Field(examples=["ORD-00000101"])]
    customer_id: Id
    status: Status
    currency: Currency
    total_cents: Annotated[int, Field(examples=[259800])]
    purchase_order_number: PurchaseOrderNumber | None
    correlation_id: Annotated[str, Field(examples=["req-456"])]
    created_at: Timestamp
    expires_at: Timestamp
    confirmed_at: Timestamp | None
    canceled_at: Timestamp | None
    cancel_reason: str | None
    items: list[ItemView]


class EventView(View):
    """A step of an order."""

    from_status: Status | None
    to_status: Status
    reason: str | None
    principal: Principal
    correlation_id: Annotated[str, Field(examples=["req-456"])]
    at: Timestamp


class OrderDetail(OrderView):
    """An order and the steps that brought it here."""

    history: list[EventView]


class FindMovements(PageQuery):
    """Where to go on."""


class MovementView(View):
    """A line of the ledger: by how much an order changed what a product has and what of it is held."""

    id: Id
    product_id: Id
    kind: Movement
    stock_delta: Annotated[int, Field(examples=[-2])]
    reserved_delta: Annotated[int, Field(examples=[-2])]
    reason: str | None
    correlation_id: Annotated[str, Field(examples=["req-456"])]
    at: Timestamp
