"""Products, orders, their ledger and history, idempotency keys."""

import sqlalchemy as sa
from alembic import op

from chassis import dialects, migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "products",
        sa.Column("id", dialects.BigId, primary_key=True, autoincrement=True),
        sa.Column("sku", dialects.exact_text(64), nullable=False),
        sa.Column("name", dialects.free_text(200), nullable=False),
        sa.Column("price_cents", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("stock", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("1")),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("updated_at", dialects.UtcDateTime(), nullable=False),
        sa.UniqueConstraint("sku", name="uq_products_sku"),
        sa.CheckConstraint("stock >= 0", name="ck_products_stock"),
        sa.CheckConstraint("reserved BETWEEN 0 AND stock", name="ck_products_reserved"),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    op.create_table(
        "orders",
        sa.Column("id", dialects.BigId, primary_key=True, autoincrement=True),
        sa.Column("customer_id", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("total_cents", sa.BigInteger, nullable=False),
        sa.Column("purchase_order_number", dialects.exact_text(64)),
        sa.Column("correlation_id", dialects.exact_text(128), nullable=False),
        sa.Column("cancel_reason", dialects.free_text(200)),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("expires_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("confirmed_at", dialects.UtcDateTime()),
        sa.Column("canceled_at", dialects.UtcDateTime()),
        sa.UniqueConstraint("customer_id", "purchase_order_number", name="uq_orders_purchase_order"),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index("ix_orders_created", "orders", ["created_at", "id"])
    migrations.create_index("ix_orders_status", "orders", ["status", "created_at", "id"])
    migrations.create_index("ix_orders_customer", "orders", ["customer_id", "created_at", "id"])
    migrations.create_index("ix_orders_expiry", "orders", ["status", "expires_at"])
    op.create_table(
        "order_items",
        sa.Column("order_id", dialects.BigId, sa.ForeignKey("orders.id"), primary_key=True),
        sa.Column("product_id", dialects.BigId, sa.ForeignKey("products.id"), primary_key=True),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("sku", dialects.exact_text(64), nullable=False),
        sa.Column("name", dialects.free_text(200), nullable=False),
        sa.Column("qty", sa.BigInteger, nullable=False),
        sa.Column("unit_price_cents", sa.BigInteger, nullable=False),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index("ix_order_items_product", "order_items", ["product_id"])
    op.create_table(
        "order_events",
        sa.Column("id", dialects.BigId, primary_key=True, autoincrement=True),
        sa.Column("order_id", dialects.BigId, sa.ForeignKey("orders.id"), nullable=False),
        sa.Column("from_status", sa.String(16)),
        sa.Column("to_status", sa.String(16), nullable=False),
        sa.Column("reason", dialects.free_text(200)),
        sa.Column("correlation_id", dialects.exact_text(128), nullable=False),
        sa.Column("at", dialects.UtcDateTime(), nullable=False),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index("ix_order_events_order_id", "order_events", ["order_id"])
    op.create_table(
        "stock_movements",
        sa.Column("id", dialects.BigId, primary_key=True, autoincrement=True),
        sa.Column("product_id", dialects.BigId, sa.ForeignKey("products.id"), nullable=False),
        sa.Column("order_id", dialects.BigId, sa.ForeignKey("orders.id")),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("stock_delta", sa.BigInteger, nullable=False),
        sa.Column("reserved_delta", sa.BigInteger, nullable=False),
        sa.Column("reason", dialects.free_text(200)),
        sa.Column("correlation_id", dialects.exact_text(128), nullable=False),
        sa.Column("at", dialects.UtcDateTime(), nullable=False),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index("ix_stock_movements_product", "stock_movements", ["product_id"])
    migrations.create_index("ix_stock_movements_order", "stock_movements", ["order_id"])
    op.create_table(
        "orders_idempotency_keys",
        sa.Column("scope", dialects.exact_bytes(160), primary_key=True),
        sa.Column("key", dialects.exact_bytes(255), primary_key=True),
        sa.Column("fingerprint", dialects.exact_bytes(32), nullable=False),
        sa.Column("resource", sa.String(64)),
        sa.Column("status", sa.SmallInteger),
        sa.Column("body", dialects.long_bytes()),
        sa.Column("headers", dialects.long_text()),
        sa.Column("created_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("completed_at", dialects.UtcDateTime()),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index(
        "ix_orders_idempotency_keys_completed_at", "orders_idempotency_keys", ["completed_at"]
    )


def downgrade() -> None:
    for table in (
        "orders_idempotency_keys",
        "stock_movements",
        "order_events",
        "order_items",
        "orders",
        "products",
    ):
        op.drop_table(table)
