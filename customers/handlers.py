"""The customers API: from the request to a command or query, and back."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import http
from chassis.database import DATABASE
from chassis.http import Answer, Id, One
from chassis.pagination import Page
from chassis.routes import Routes
from customers import commands, queries
from customers.errors import CustomerNotFound, EmailTaken
from customers.models import Customer
from customers.schemas import CreateCustomer, CustomerView, FindCustomers, UpdateCustomer

routes = Routes("customers")
PREFIX = "/admin/customers"


@routes.post(
    f"{PREFIX}/create-customer",
    scope="customers:write",
    answers={201: One[CustomerView]},
    refuses=(EmailTaken,),
    creates="customer_id",
)
async def create_customer(request: web.Request, body: CreateCustomer) -> Answer:
    """Add a customer.

    The e-mail address is stored in lower case and must be unique.
    """
    customer = await request.app[DATABASE].transact(lambda session: commands.create_customer(session, body))
    return _answer(customer, 201, location=f"{PREFIX}/find-one/{customer.id}")


@routes.get(f"{PREFIX}/find-all", scope="customers:read", answers={200: Page[CustomerView]})
async def find_customers(request: web.Request, query: FindCustomers) -> Answer:
    """List customers, newest first."""
    async with request.app[DATABASE].read() as session:
        rows = await queries.find_customers(session, query)
    return Answer.of(Page.of(rows, query, CustomerView.model_validate, lambda customer: (customer.id,)))


@routes.get(
    f"{PREFIX}/find-one/{{customer_id}}",
    scope="customers:read",
    answers={200: One[CustomerView]},
    refuses=(CustomerNotFound,),
)
async def get_customer(request: web.Request, customer_id: Id) -> Answer:
    """Show one customer."""
    async with request.app[DATABASE].read() as session:
        customer = await queries.get_customer(session, customer_id)
    return http.not_modified(request, _answer(customer))


@routes.patch(
    f"{PREFIX}/update/{{customer_id}}",
    scope="customers:write",
    answers={200: One[CustomerView]},
    refuses=(CustomerNotFound, EmailTaken),
    conditional=True,
)
async def update_customer(request: web.Request, customer_id: Id, body: UpdateCustomer) -> Answer:
    """Change some fields of a customer.

    With `If-Match`, only if nobody changed the customer since.
    """
    versions = http.expected_versions(request)

    async def work(session: AsyncSession) -> Customer:
        return await commands.update_customer(session, customer_id, body, versions)

    return _answer(await request.app[DATABASE].transact(work))


@routes.patch(
    f"{PREFIX}/logic-delete/{{customer_id}}",
    scope="customers:write",
    answers={200: One[CustomerView]},
    refuses=(CustomerNotFound,),
)
async def deactivate_customer(request: web.Request, customer_id: Id) -> Answer:
    """Deactivate a customer: it stays, but may order no more."""

    async def work(session: AsyncSession) -> Customer:
        return await commands.deactivate_customer(session, customer_id)

    return _answer(await request.app[DATABASE].transact(work))


@routes.get(
    f"{PREFIX}/internal/customers/{{customer_id}}",
    answers={200: One[CustomerView]},
    refuses=(CustomerNotFound,),
    internal=True,
)
async def get_customer_internal(request: web.Request, customer_id: Id) -> Answer:
    """Show one customer to a peer that has the service token."""
    async with request.app[DATABASE].read() as session:
        return _answer(await queries.get_customer(session, customer_id))


def _answer(customer: Customer, status: int = 200, *, location: str | None = None) -> Answer:
    view = One[CustomerView](data=CustomerView.model_validate(customer))
    return Answer.of(view, status, location=location, version=customer.version)
