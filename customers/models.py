"""The customer: its table, and nothing that needs another row."""

from datetime import datetime

from sqlalchemy import Boolean, Integer, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis import dialects


class Base(DeclarativeBase):
    """The tables of the customers service."""


class Customer(Base):
    """A company that orders. `version` counts its changes and is its ETag."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(dialects.BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(dialects.free_text(200))
    email: Mapped[str] = mapped_column(dialects.exact_text(254), unique=True)
    phone: Mapped[str | None] = mapped_column(dialects.exact_text(32))
    is_active: Mapped[bool] = mapped_column(Boolean, server_default=text("1"))
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    updated_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
