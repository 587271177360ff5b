"""The smallest service that uses everything of the chassis; it counts."""

import asyncio
from typing import Annotated, Any, ClassVar

from aiohttp import web
from pydantic import Field
from sqlalchemy import BigInteger, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis import http, idempotency, settings
from chassis.app import build_app
from chassis.database import DATABASE, Database, changed
from chassis.errors import Problem
from chassis.http import Answer, Id, One, Schema, Update, View
from chassis.idempotency import KeyRow
from chassis.pagination import Page, PageQuery
from chassis.routes import Routes


class Settings(settings.Settings):
    service: ClassVar[str] = "sample"

    port: settings.Port = 0
    admin_port: settings.Port = 0


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)


class Key(KeyRow, Base):
    __tablename__ = "sample_keys"


class CounterMissing(Problem):
    status = 404
    code = "counter.not_found"
    title = "There is no such counter"


class CounterFull(Problem):
    status = 409
    code = "counter.full"
    title = "The counter is full"


class Step(Schema):
    name: Annotated[str, Field(min_length=1, examples=["one"])]
    by: Annotated[int, Field(ge=1, le=9)]


class Count(Schema):
    """Steps to count."""

    steps: Annotated[list[Step], Field(min_length=1, max_length=3)]
    comment: str | None = None
    idempotency_key: str | None = None


class SetCounter(Update):
    value: int = 0


class FindCounters(PageQuery):
    above: int | None = None


class CounterView(View):
    id: Id
    value: int


FULL = 100
FAILURES = web.AppKey("failures", list[Exception])
"""What `count` raises in turn after it has written."""
GATE = web.AppKey("gate", asyncio.Event)
"""What `count` waits for after it has written; open unless a test closes it."""
routes = Routes("counters")


@routes.post(
    "/counters/{counter_id}/count",
    scope="counters:write",
    peers=True,
    answers={200: One[CounterView]},
    refuses=(CounterMissing, CounterFull),
    key="optional",
)
async def count(request: web.Request, counter_id: Id, body: Count) -> Answer:
    """Count on."""

    async def work(session: AsyncSession) -> Answer | Problem:
        by = sum(step.by for step in body.steps)
        statement = update(Counter).where(Counter.id == counter_id, Counter.value <= FULL - by)
        found = await changed(session, statement.values(value=Counter.value + by))
        counter = await session.get(Counter, counter_id)
        if counter is None:
            return CounterMissing(f"There is no counter {counter_id}.")
        await request.app[GATE].wait()
        if request.app[FAILURES]:
            raise request.app[FAILURES].pop(0)
        if not found:
            return CounterFull(f"Counter {counter_id} is at {counter.value}.")
        return _answer(counter)

    return await idempotency.once(request, work)


@routes.post(
    "/counters/{counter_id}/reset", scope="counters:write", answers={200: One[CounterView]}, key="required"
)
async def reset(request: web.Request, counter_id: Id) -> Answer:
    """Count from zero again."""

    async def work(session: AsyncSession) -> Answer:
        await changed(session, update(Counter).where(Counter.id == counter_id).values(value=0))
        return Answer.of(One[CounterView](data=CounterView(id=counter_id, value=0)))

    return await idempotency.once(request, work)


@routes.patch(
    "/counters/{counter_id}", scope="counters:write", answers={200: One[CounterView]}, conditional=True
)
async def set_counter(request: web.Request, counter_id: Id, body: SetCounter) -> Answer:
    """Set a counter."""
    http.expected_versions(request)
    return Answer.of(One[CounterView](data=CounterView(id=counter_id, value=body.value)))


@routes.get("/counters", scope="counters:read", answers={200: Page[CounterView]})
async def find_counters(request: web.Request, query: FindCounters) -> Answer:
    """List counters."""
    statement = select(Counter).order_by(Counter.id.desc()).limit(query.limit + 1)
    if (after := query.position()) is not None:
        statement = statement.where(Counter.id < after[0])
    if query.above is not None:
        statement = statement.where(Counter.value > query.above)
    async with request.app[DATABASE].read() as session:
        rows = (await session.scalars(statement)).all()
    return Answer.of(Page.of(rows, query, CounterView.model_validate, lambda counter: (counter.id,)))


@routes.get("/counters/{counter_id}/internal", answers={200: One[CounterView]}, internal=True)
async def get_counter(request: web.Request, counter_id: Id) -> Answer:
    """Show a counter to a peer."""
    async with request.app[DATABASE].read() as session:
        return _answer(await session.get_one(Counter, counter_id))


@routes.get("/broken", scope="counters:read", answers={200: One[CounterView]})
async def broken(request: web.Request) -> Answer:  # noqa: ARG001 - a handler's signature
    """Have a bug."""
    raise RuntimeError("SELECT secret FROM vault")


def _answer(counter: Counter) -> Answer:
    view = One[CounterView](data=CounterView.model_validate(counter))
    return Answer.of(view, version=counter.value)


def create_app(sample_settings: Settings) -> web.Application:
    app = build_app(sample_settings, description="It counts.", routes=[routes], keys=Key)
    app[FAILURES] = []
    app[GATE] = asyncio.Event()
    app[GATE].set()
    return app


async def create_tables(database: Database, **counters: Any) -> None:
    """Create the tables if they are not there, and counters of these values: `c1=5`."""
    async with database.writers.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    async def work(session: AsyncSession) -> None:
        session.add_all(Counter(id=int(name[1:]), value=value) for name, value in counters.items())

    await database.transact(work)
