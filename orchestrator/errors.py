"""What the orchestrator refuses, and what it passes on of the refusals of its peers.

A peer's words are never passed on, its code and the data that belong to the code are.
"""

from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from chassis.errors import Problem


class SagaNotFound(Problem):
    """No saga has this id."""

    status = HTTPStatus.NOT_FOUND
    code = "saga.not_found"
    title = "There is no such saga"


class SagaNotRetryable(Problem):
    """Only a saga that needs attention can be retried."""

    status = HTTPStatus.CONFLICT
    code = "saga.not_retryable"
    title = "The saga does not wait for a retry"


class SagaUnfinished(Problem):
    """The work goes on without the client; the same key asks for its answer again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "saga.unfinished"
    title = "The order is not finished yet"
    retryable = True
    retry_after = 5


class SagaNeedsAttention(Problem):
    """The saga cannot end by itself; once an operator has helped it, the same key has its answer."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "saga.needs_attention"
    title = "The order needs an operator's attention"
    retryable = True
    retry_after = 60


# --- refusals of peers --------------------------------------------------------------------------


class Shortage(TypedDict):
    """A line that asks for more than there is."""

    product_id: int
    sku: str
    requested: int
    available: int


class PeerRefusal(Problem):
    """A refusal that ends the saga, in a code that is not known here."""

    status = HTTPStatus.CONFLICT
    code = "saga.refused"
    title = "A step of the order was refused"
    passes_on: ClassVar[dict[str, TypeAdapter[Any]]] = {}
    """The members of the peer's problem that belong to the code, and what they must be."""
    attempts = 1
    peer_code = ""
    """The peer's own code: operators want to know it, whether or not it is known here."""

    @classmethod
    def of(cls, body: dict[str, Any]) -> "PeerRefusal":
        """The refusal that a peer's problem stands for, in our words."""
        refusal = KNOWN.get(body["code"], PeerRefusal)
        members = {}
        for name, wanted in refusal.passes_on.items():
            try:
                members[name] = wanted.validate_python(body.get(name), strict=True)
            except ValidationError:
                continue  # the code alone is true; a member that is not what it should be is left out
        found = refusal(f"{refusal.title}.", **members)
        found.peer_code = body["code"][:64]
        return found


_IDS: TypeAdapter[Any] = TypeAdapter(list[int])


class CustomerNotFound(PeerRefusal):
    """From customers and orders."""

    status = HTTPStatus.NOT_FOUND
    code = "customer.not_found"
    title = "There is no such customer"


class CustomerInactive(PeerRefusal):
    """From customers and orders."""

    code = "customer.inactive"
    title = "The customer may not order"


class ProductNotFound(PeerRefusal):
    """From create_order."""

    status = HTTPStatus.NOT_FOUND
    code = "product.not_found"
    title = "There is no such product"
    passes_on: ClassVar = {"product_ids": _IDS}


class ProductInactive(PeerRefusal):
    """From create_order."""

    code = "product.inactive"
    title = "The product is not sold any more"
    passes_on: ClassVar = {"product_ids": _IDS}


class CurrencyMixed(PeerRefusal):
    """From create_order."""

    code = "order.currency_mixed"
    title = "The products are priced in different currencies"


class PurchaseOrderTaken(PeerRefusal):
    """From create_order."""

    code = "order.purchase_order_taken"
    title = "The customer already has an order with this purchase order number"
    passes_on: ClassVar = {"order_id": TypeAdapter(int)}


class StockInsufficient(PeerRefusal):
    """From create_order."""

    code = "stock.insufficient"
    title = "There is not enough stock"
    passes_on: ClassVar = {"shortages": TypeAdapter(list[Shortage])}


class OrderExpired(PeerRefusal):
    """From confirm_order."""

    code = "order.expired"
    title = "The order's reservation has expired"


class OrderNotConfirmable(PeerRefusal):
    """From confirm_order: someone else confirmed or canceled the order meanwhile."""

    code = "order.not_confirmable"
    title = "The order is not waiting for confirmation"


KNOWN: dict[str, type[PeerRefusal]] = {
    refusal.code: refusal
    for refusal in (
        PeerRefusal,
        CustomerNotFound,
        CustomerInactive,
        ProductNotFound,
        ProductInactive,
        CurrencyMixed,
        PurchaseOrderTaken,
        StockInsufficient,
        OrderExpired,
        OrderNotConfirmable,
    )
}
