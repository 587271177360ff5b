"""The products API: from the request to a command or query, and back."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import http
from chassis.database import DATABASE
from chassis.errors import Problem
from chassis.http import Answer, Id, One
from chassis.idempotency import Outcome, once
from chassis.pagination import Page
from chassis.routes import Routes
from orders import product_commands as commands
from orders import queries
from orders.errors import ProductNotFound, SkuTaken, StockInsufficient, StockLimit
from orders.models import Product
from orders.schemas import AdjustStock, CreateProduct, FindProducts, ProductView, UpdateProduct

routes = Routes("products")
PREFIX = "/admin/products"


@routes.post(
    f"{PREFIX}/create-product",
    scope="products:write",
    answers={201: One[ProductView]},
    refuses=(SkuTaken,),
    key="optional",
    creates="product_id",
)
async def create_product(request: web.Request, body: CreateProduct) -> Answer:
    """Add a product, with its first stock."""

    async def work(session: AsyncSession) -> Outcome:
        product = await commands.create_product(session, body)
        return _answer(product, 201, location=f"{PREFIX}/find-one/{product.id}")

    return await once(request, work)


@routes.get(f"{PREFIX}/find-all", scope="products:read", answers={200: Page[ProductView]})
async def find_products(request: web.Request, query: FindProducts) -> Answer:
    """List products, newest first."""
    async with request.app[DATABASE].read() as session:
        rows = await queries.find_products(session, query)
    return Answer.of(Page.of(rows, query, ProductView.model_validate, lambda product: (product.id,)))


@routes.get(
    f"{PREFIX}/find-one/{{product_id}}",
    scope="products:read",
    answers={200: One[ProductView]},
    refuses=(ProductNotFound,),
)
async def get_product(request: web.Request, product_id: Id) -> Answer:
    """Show one product.

    The ETag changes with what people maintain (name, price, activity), not with every sale.
    """
    async with request.app[DATABASE].read() as session:
        return _answer(await queries.get_product(session, product_id))


@routes.patch(
    f"{PREFIX}/update/{{product_id}}",
    scope="products:write",
    answers={200: One[ProductView]},
    refuses=(ProductNotFound,),
    conditional=True,
)
async def update_product(request: web.Request, product_id: Id, body: UpdateProduct) -> Answer:
    """Change some fields of a product; orders keep the name and price they were created with.

    With `If-Match`, only if nobody changed the product since.
    """
    versions = http.expected_versions(request)

    async def work(session: AsyncSession) -> Product:
        return await commands.update_product(session, product_id, body, versions)

    return _answer(await request.app[DATABASE].transact(work))


@routes.patch(
    f"{PREFIX}/logic-delete/{{product_id}}",
    scope="products:write",
    answers={200: One[ProductView]},
    refuses=(ProductNotFound,),
)
async def deactivate_product(request: web.Request, product_id: Id) -> Answer:
    """Deactivate a product: it stays, but is not sold any more."""

    async def work(session: AsyncSession) -> Product:
        return await commands.deactivate_product(session, product_id)

    return _answer(await request.app[DATABASE].transact(work))


@routes.post(
    f"{PREFIX}/{{product_id}}/adjust-stock",
    scope="products:write",
    answers={200: One[ProductView]},
    refuses=(ProductNotFound, StockInsufficient, StockLimit),
    key="optional",
)
async def adjust_stock(request: web.Request, product_id: Id, body: AdjustStock) -> Answer:
    """Count units in or out; what orders have reserved cannot be counted out."""

    async def work(session: AsyncSession) -> Outcome:
        decided = await commands.adjust_stock(session, product_id, body)
        return decided if isinstance(decided, Problem) else _answer(decided)

    return await once(request, work)


def _answer(product: Product, status: int = 200, *, location: str | None = None) -> Answer:
    view = One[ProductView](data=ProductView.model_validate(product))
    return Answer.of(view, status, location=location, version=product.version)
