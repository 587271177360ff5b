"""The tables, and the rules on one row.

A rule either changes the row in memory or raises a Problem and leaves it as it was.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from chassis import dialects, idempotency
from chassis.auth.principal import MAX_LENGTH
from orders.errors import (
    CancelWindowClosed,
    OrderExpired,
    OrderNotConfirmable,
    Shortage,
    StockInsufficient,
    StockLimit,
)

MAX_STOCK = 10**12


class Base(DeclarativeBase):
    """The tables of the orders service."""


class Status(StrEnum):
    """CREATED → CONFIRMED | CANCELED, CONFIRMED → CANCELED, nothing else."""

    CREATED = "CREATED"
    CONFIRMED = "CONFIRMED"
    CANCELED = "CANCELED"


class Delta(NamedTuple):
    """What a rule did to a product: the two numbers of its row in the ledger."""

    stock: int
    reserved: int


class Product(Base):
    """What is sold. `stock` is on hand, `reserved` the part of it that CREATED orders hold.

    `version` counts the changes of what people maintain (name, price, whether it is sold) and is the
    ETag: a price can be edited with If-Match while the product sells.
    """

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("stock >= 0", name="ck_products_stock"),
        CheckConstraint("reserved BETWEEN 0 AND stock", name="ck_products_reserved"),
    )

    id: Mapped[int] = mapped_column(dialects.BigId, primary_key=True, autoincrement=True)
    sku: Mapped[str] = mapped_column(dialects.exact_text(64), unique=True)
    name: Mapped[str] = mapped_column(dialects.free_text(200))
    price_cents: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    stock: Mapped[int] = mapped_column(BigInteger)
    reserved: Mapped[int] = mapped_column(BigInteger)
    is_active: Mapped[bool] = mapped_column(Boolean, server_default=text("1"))
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    updated_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())

    @property
    def available(self) -> int:
        """What can still be reserved."""
        return self.stock - self.reserved

    def shortage(self, qty: int) -> Shortage | None:
        """What is missing to reserve `qty`; None if nothing is."""
        if qty <= self.available:
            return None
        return Shortage(self.id, self.sku, qty, self.available)

    def reserve(self, qty: int) -> Delta:
        """Hold `qty` for an order; the caller has looked for a shortage."""
        return self._apply(Delta(0, qty))

    def release(self, qty: int) -> Delta:
        """Give back what `reserve` held."""
        return self._apply(Delta(0, -qty))

    def sell(self, qty: int) -> Delta:
        """Turn what `reserve` held into a sale."""
        return self._apply(Delta(-qty, -qty))

    def take_back(self, qty: int) -> Delta:
        """Undo a sale."""
        return self._apply(Delta(qty, 0))

    def adjust(self, delta: int) -> Delta:
        """Count `delta` in or out.

        Raises:
            StockInsufficient: it would take what is reserved or not there.
            StockLimit: it would exceed MAX_STOCK.

        """
        if self.available + delta < 0:
            raise StockInsufficient.of([Shortage(self.id, self.sku, -delta, self.available)])
        if self.stock + delta > MAX_STOCK:
            raise StockLimit(f"A product counts at most {MAX_STOCK} units; it has {self.stock}.")
        return self._apply(Delta(delta, 0))

    def _apply(self, delta: Delta) -> Delta:
        self.stock += delta.stock
        self.reserved += delta.reserved
        return delta


ORDER_NUMBER = r"^ORD-(?:[0-9]{8}|[1-9][0-9]{8,17})$"
"""What an order number looks like."""


class Order(Base):
    """An order; its items are snapshots of what the products were when it was created.

    `version` counts its steps and is its ETag.
    """

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("customer_id", "purchase_order_number", name="uq_orders_purchase_order"),
        Index("ix_orders_created", "created_at", "id"),
        Index("ix_orders_status", "status", "created_at", "id"),
        Index("ix_orders_customer", "customer_id", "created_at", "id"),
        Index("ix_orders_correlation", "correlation_id", "created_at", "id"),
        Index("ix_orders_expiry", "status", "expires_at"),
    )

    id: Mapped[int] = mapped_column(dialects.BigId, primary_key=True, autoincrement=True)
    customer_id: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[Status] = mapped_column(String(16))
    currency: Mapped[str] = mapped_column(String(3))
    total_cents: Mapped[int] = mapped_column(BigInteger)
    purchase_order_number: Mapped[str | None] = mapped_column(dialects.exact_text(64))
    correlation_id: Mapped[str] = mapped_column(dialects.exact_text(128))
    cancel_reason: Mapped[str | None] = mapped_column(dialects.free_text(200))
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    expires_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    confirmed_at: Mapped[datetime | None] = mapped_column(dialects.UtcDateTime())
    canceled_at: Mapped[datetime | None] = mapped_column(dialects.UtcDateTime())
    items: Mapped[list["OrderItem"]] = relationship(lazy="raise", order_by="OrderItem.line")
    history: Mapped[list["OrderEvent"]] = relationship(lazy="raise", order_by="OrderEvent.id")

    @property
    def order_number(self) -> str:
        """What people call the order; its id in another form, so it needs no column and no counter."""
        return f"ORD-{self.id:08d}"

    @staticmethod
    def id_of(order_number: str) -> int:
        """The id of the order with this number; see ORDER_NUMBER."""
        return int(order_number.removeprefix("ORD-"))

    def is_expired(self, now: datetime) -> bool:
        """Whether the order waited too long for its confirmation."""
        return self.status == Status.CREATED and self.expires_at <= now

    def confirm(self, now: datetime) -> None:
        """CREATED → CONFIRMED, before the reservation runs out.

        Raises:
            OrderNotConfirmable, OrderExpired: it is too late.

        """
        if self.status != Status.CREATED:
            raise OrderNotConfirmable(f"Order {self.id} is {self.status}.", order_status=self.status)
        if self.is_expired(now):
            raise OrderExpired(f"Order {self.id} expired at {self.expires_at.isoformat()}.")
        self.status = Status.CONFIRMED
        self.confirmed_at = now
        self.version += 1

    def cancel(self, now: datetime, reason: str | None, window: timedelta) -> None:
        """CREATED | CONFIRMED → CANCELED; a confirmed order only within `window` of its confirmation.

        Raises:
            CancelWindowClosed: it is too late.

        """
        if self.confirmed_at is not None and now - self.confirmed_at > window:
            raise CancelWindowClosed(f"Order {self.id} was confirmed at {self.confirmed_at.isoformat()}.")
        self.status = Status.CANCELED
        self.canceled_at = now
        self.cancel_reason = reason
        self.version += 1


class OrderItem(Base):
    """A line of an order; a product stands in one line only."""

    __tablename__ = "order_items"
    __table_args__ = (Index("ix_order_items_product", "product_id"),)

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), primary_key=True)
    line: Mapped[int] = mapped_column(Integer)
    sku: Mapped[str] = mapped_column(dialects.exact_text(64))
    name: Mapped[str] = mapped_column(dialects.free_text(200))
    qty: Mapped[int] = mapped_column(BigInteger)
    unit_price_cents: Mapped[int] = mapped_column(BigInteger)

    @property
    def subtotal_cents(self) -> int:
        """What the line costs."""
        return self.qty * self.unit_price_cents


class OrderEvent(Base):
    """A change of an order; append-only."""

    __tablename__ = "order_events"

    id: Mapped[int] = mapped_column(dialects.BigId, primary_key=True, autoincrement=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    from_status: Mapped[Status | None] = mapped_column(String(16))
    to_status: Mapped[Status] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(dialects.free_text(200))
    principal: Mapped[str | None] = mapped_column(dialects.exact_text(MAX_LENGTH))
    correlation_id: Mapped[str] = mapped_column(dialects.exact_text(128))
    at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())


class Movement(StrEnum):
    """Why stock or reservations changed."""

    INITIAL = "initial"
    ADJUST = "adjust"
    RESERVE = "reserve"
    RELEASE = "release"
    SALE = "sale"
    RETURN = "return"


class StockMovement(Base):
    """The ledger: a product's stock and reserved are the sums of its deltas; append-only."""

    __tablename__ = "stock_movements"
    __table_args__ = (
        Index("ix_stock_movements_product", "product_id"),
        Index("ix_stock_movements_order", "order_id"),
    )

    id: Mapped[int] = mapped_column(dialects.BigId, primary_key=True, autoincrement=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
    kind: Mapped[Movement] = mapped_column(String(16))
    stock_delta: Mapped[int] = mapped_column(BigInteger)
    reserved_delta: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(dialects.free_text(200))
    correlation_id: Mapped[str] = mapped_column(dialects.exact_text(128))
    at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())


class IdempotencyKey(idempotency.KeyRow, Base):
    """The idempotency keys of this service."""

    __tablename__ = "orders_idempotency_keys"
