"""What people maintain of products, and counting stock in and out."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import correlation, dialects
from chassis.database import changed
from chassis.errors import Problem, VersionMismatch
from orders import queries
from orders.commands import release_expired
from orders.errors import ProductNotFound, SkuTaken, StockInsufficient
from orders.models import Delta, Movement, Product, StockMovement
from orders.schemas import AdjustStock, CreateProduct, UpdateProduct
from orders.stock import Change, lock_products, write_changes


async def create_product(session: AsyncSession, body: CreateProduct) -> Product:
    """Add a product; its first stock is the first row of its ledger.

    Raises:
        SkuTaken: another product has the SKU.

    """
    now = dialects.now()
    product = Product(
        **body.model_dump(exclude={"idempotency_key"}), reserved=0, created_at=now, updated_at=now
    )
    session.add(product)
    try:
        await session.flush()
    except IntegrityError as error:
        if dialects.is_duplicate(error):
            raise SkuTaken(f"Another product has the SKU {body.sku}.") from error
        raise
    await session.refresh(product)
    initial = Delta(product.stock, 0)
    session.add(
        StockMovement(
            product_id=product.id,
            kind=Movement.INITIAL,
            stock_delta=initial.stock,
            reserved_delta=initial.reserved,
            correlation_id=correlation.current(),
            at=product.created_at,
        )
    )
    return product


async def update_product(
    session: AsyncSession, product_id: int, body: UpdateProduct, versions: frozenset[int] | None
) -> Product:
    """Change the given fields if the product is still at one of `versions` (None allows any).

    Raises:
        ProductNotFound, VersionMismatch: nothing was changed.

    """
    return await _change(session, product_id, body.model_dump(exclude_unset=True), versions)


async def deactivate_product(session: AsyncSession, product_id: int) -> Product:
    """Sell the product no more; doing it again changes nothing.

    Raises:
        ProductNotFound: there is none with this id.

    """
    product = await queries.get_product(session, product_id)
    return await _change(session, product_id, {"is_active": False}, None) if product.is_active else product


async def adjust_stock(session: AsyncSession, product_id: int, body: AdjustStock) -> Product | Problem:
    """Count `delta` units in or out; what is reserved cannot be counted out.

    Raises:
        Lost: what is short is held by expired orders, see `release_expired`.

    """
    products, now = await lock_products(session, [product_id])
    product = products.get(product_id)
    if product is None:
        return ProductNotFound(f"There is no product {product_id}.", product_ids=[product_id])
    try:
        delta = product.adjust(body.delta)
    except StockInsufficient as problem:
        await release_expired(session, [product_id])
        return problem
    except Problem as problem:
        return problem
    await write_changes(session, [Change(product_id, Movement.ADJUST, delta, reason=body.reason)], now)
    product.updated_at = now
    return product


async def _change(
    session: AsyncSession, product_id: int, values: dict[str, Any], versions: frozenset[int] | None
) -> Product:
    statement = (
        update(Product)
        .where(Product.id == product_id)
        .values(**values, version=Product.version + 1, updated_at=dialects.now())
    )
    if versions is not None:
        statement = statement.where(Product.version.in_(versions))
    found = await changed(session, statement)
    product = await queries.get_product(session, product_id)
    if not found:
        raise VersionMismatch(f"Product {product_id} is at version {product.version} by now.")
    return product
