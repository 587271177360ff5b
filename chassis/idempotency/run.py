"""Do the work of a request once for its key."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import correlation, http
from chassis.database import DATABASE, after_commit
from chassis.errors import CONTENT_TYPE, KeyInProgress, Problem
from chassis.http import Answer
from chassis.idempotency.flights import Flight, in_progress
from chassis.idempotency.keys import KEY
from chassis.idempotency.table import KEYS, Kept, KeyHeld, Keys, KeyTaken, Outcome

Work = Callable[[AsyncSession], Awaitable[Outcome]]
Before = Callable[[], Awaitable[None]]


async def once(request: web.Request, work: Work, *, before: Before | None = None) -> Answer:
    """Do `work` as one transaction, once for the key of the request, if it has one.

    `work` returns an Answer, or a Problem when it decided to refuse and wrote nothing; what it raises
    undoes everything. `before` is what must happen outside of the transaction, like asking a peer;
    a replay does not do it again.

    Raises:
        Problem: the refusal, when no key keeps it.
        KeyReused: the key belongs to another request.
        KeyInProgress: the first request with this key did not end in time.

    """
    key = request.get(KEY)
    if key is None:
        if before is not None:
            await before()
        outcome = await request.app[DATABASE].transact(work)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    keys = request.app[KEYS]
    patience = http.preferred_wait(request, request.app[http.SETTINGS].join_timeout)
    run = partial(_run, request, work, before)
    try:
        answer, is_anothers = await keys.flights.share(key, run, patience, http.stated_wait(request))
    except KeyInProgress:
        keys.count("in_progress")
        raise
    return keys.replayed(answer) if is_anothers else answer


async def _run(request: web.Request, work: Work, before: Before | None, flight: Flight[Answer]) -> Answer:
    """Do the work, or find what it brought the first time."""
    keys, key = request.app[KEYS], request[KEY]
    looked = before is not None or keys.database.readers_wait_for_nobody or keys.flights.is_of_another(key)
    if looked and (kept := await keys.find(key)) is not None:
        return _given_before(keys, kept)
    if (refusal := await _refusal_of(before)) is not None:
        work = _refusing(refusal)
    deadline = monotonic() + request.app[http.SETTINGS].join_timeout
    while True:
        try:
            with_key = partial(_keyed, request, work, flight, looked=looked)
            return await keys.database.transact(with_key)
        except KeyTaken:
            if (kept := await keys.find(key)) is not None:
                return _given_before(keys, kept)
        except KeyHeld:
            if monotonic() > deadline:
                raise in_progress() from None
        except Problem as problem:
            if not problem.final:
                raise
            work = _refusing(problem)  # what was done is undone; the next transaction keeps the refusal


async def _keyed(
    request: web.Request, work: Work, flight: Flight[Answer], session: AsyncSession, *, looked: bool
) -> Answer:
    """The transaction: key, effect and answer."""
    keys, key = request.app[KEYS], request[KEY]
    with flight.claiming():
        # Where it waits for nobody, a look in this transaction costs less than one of its own.
        if not looked and (kept := await keys.find_in(session, key)) is not None:
            return _given_before(keys, kept)
        await keys.claim(session, [key])
    outcome = await work(session)
    if isinstance(outcome, Problem) and not outcome.final:
        raise outcome
    answer = final_answer(request, outcome) if isinstance(outcome, Problem) else outcome
    await keys.keep(session, key.scope, key.value, answer)
    after_commit(session, lambda: keys.count("refused" if isinstance(outcome, Problem) else "executed"))
    return answer


def _refusing(problem: Problem) -> Work:
    """A work that has been decided."""

    async def work(_session: AsyncSession) -> Outcome:
        return problem

    return work


async def _refusal_of(before: Before | None) -> Problem | None:
    try:
        if before is not None:
            await before()
    except Problem as problem:
        if not problem.final:
            raise
        return problem
    return None


def final_answer(request: web.Request, problem: Problem) -> Answer:
    """A refusal as the answer that its key keeps."""
    problem.members["retry_needs_new_key"] = True
    body = problem.render(
        instance=request.path, correlation_id=correlation.current(), trace_id=correlation.trace_id()
    )
    return Answer(problem.status, body, problem.headers, CONTENT_TYPE)


def _given_before(keys: Keys, kept: Kept) -> Answer:
    if kept.answer is None:
        raise in_progress()
    return keys.replayed(kept.answer)


async def stop_flights(app: web.Application) -> AsyncIterator[None]:
    """The context that ends what is still under way; it ends before what the work needs does."""
    yield
    app[KEYS].flights.close()
