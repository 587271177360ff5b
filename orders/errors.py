"""What the orders service refuses, and how it says so."""

from dataclasses import asdict, dataclass
from http import HTTPStatus

from chassis.errors import PeerUnavailable, Problem


class ProductNotFound(Problem):
    """Products that do not exist; `product_ids` lists all of them."""

    status = HTTPStatus.NOT_FOUND
    code = "product.not_found"
    title = "There is no such product"


class SkuTaken(Problem):
    """A stock keeping unit names one product."""

    status = HTTPStatus.CONFLICT
    code = "product.sku_taken"
    title = "Another product has this SKU"


class ProductInactive(Problem):
    """Products that are not sold any more; `product_ids` lists all of them."""

    status = HTTPStatus.CONFLICT
    code = "product.inactive"
    title = "The product is not sold any more"


class CurrencyMixed(Problem):
    """An order has one currency."""

    status = HTTPStatus.CONFLICT
    code = "order.currency_mixed"
    title = "The products are priced in different currencies"


@dataclass(frozen=True, slots=True)
class Shortage:
    """A line that asks for more than there is."""

    product_id: int
    sku: str
    requested: int
    available: int


class StockInsufficient(Problem):
    """`shortages` lists every short line."""

    status = HTTPStatus.CONFLICT
    code = "stock.insufficient"
    title = "There is not enough stock"

    @classmethod
    def of(cls, shortages: list[Shortage]) -> "StockInsufficient":
        """The problem for these short lines."""
        short = ", ".join(
            f"{item.sku}: {item.requested} wanted, {item.available} available" for item in shortages
        )
        return cls(f"{short[:1000]}.", shortages=[asdict(item) for item in shortages])


class StockLimit(Problem):
    """Stock is counted up to a limit."""

    status = HTTPStatus.CONFLICT
    code = "stock.limit"
    title = "The stock would exceed what can be counted"


class OrderNotFound(Problem):
    """No order has this id."""

    status = HTTPStatus.NOT_FOUND
    code = "order.not_found"
    title = "There is no such order"


class PurchaseOrderTaken(Problem):
    """A purchase order number is unique per customer; `order_id` is the order that has it."""

    status = HTTPStatus.CONFLICT
    code = "order.purchase_order_taken"
    title = "The customer already has an order with this purchase order number"


class OrderNotConfirmable(Problem):
    """Only a CREATED order can be confirmed."""

    status = HTTPStatus.CONFLICT
    code = "order.not_confirmable"
    title = "The order is not waiting for confirmation"


class OrderExpired(Problem):
    """The reservation ran out before the order was confirmed."""

    status = HTTPStatus.CONFLICT
    code = "order.expired"
    title = "The order's reservation has expired"


class CancelWindowClosed(Problem):
    """A confirmed order can be canceled for a while only."""

    status = HTTPStatus.CONFLICT
    code = "order.cancel_window_closed"
    title = "The order was confirmed too long ago to be canceled"


class CustomerNotFound(Problem):
    """Orders need a customer that exists."""

    status = HTTPStatus.NOT_FOUND
    code = "customer.not_found"
    title = "There is no such customer"


class CustomerInactive(Problem):
    """Orders need a customer that is active."""

    status = HTTPStatus.CONFLICT
    code = "customer.inactive"
    title = "The customer may not order"


class CustomersUnavailable(PeerUnavailable):
    """Whether the customer may order cannot be found out now."""

    code = "customers.unavailable"
    title = "The customers service cannot be asked"
