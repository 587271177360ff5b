import base64
from typing import Annotated

import pytest
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import DATABASE, Database
from chassis.errors import RequestInvalid
from chassis.http import View
from chassis.pagination import Page, PageQuery
from tests.chassis.sample import Counter, FindCounters, Settings, create_app, create_tables
from tests.client import Client, Serve, refused
from tests.databases import MakeSettings


class RowView(View):
    id: int


class FindRows(PageQuery):
    search: Annotated[str | None, Field(max_length=10)] = None


@pytest.fixture
async def counters(make_settings: MakeSettings, serve: Serve) -> tuple[Client, Database]:
    """A service with counters 1 to 10, of the values 10 to 100."""
    app = create_app(make_settings(Settings))
    client = await serve(app)
    await create_tables(app[DATABASE], **{f"c{number}": number * 10 for number in range(1, 11)})
    return client, app[DATABASE]


def _page(ids: list[int], query: PageQuery) -> Page[RowView]:
    return Page.of(ids, query, lambda number: RowView(id=number), lambda number: (number,))


def test_the_row_too_many_says_that_there_is_a_next_page() -> None:
    page = _page([9, 8, 7], FindRows(limit=2))

    assert [row.id for row in page.data] == [9, 8]
    assert page.meta.has_next
    assert page.meta.next_cursor is not None
    assert FindRows(limit=2, cursor=page.meta.next_cursor).position() == (8,)


@pytest.mark.parametrize("ids", [[9, 8], [9], []])
def test_the_last_page_has_no_cursor_not_even_when_it_is_full(ids: list[int]) -> None:
    page = _page(ids, FindRows(limit=2))

    assert [row.id for row in page.data] == ids
    assert (page.meta.has_next, page.meta.next_cursor) == (False, None)


def test_a_cursor_fits_another_limit() -> None:
    cursor = FindRows(limit=2).cursor_after((8,))

    assert FindRows(limit=50, cursor=cursor).position() == (8,)


@pytest.mark.parametrize(
    ("made_by", "given_to"),
    [
        (FindRows(), FindRows(search="x")),
        (FindRows(search="x"), FindRows(search="y")),
        (FindCounters(), FindRows()),
    ],
)
def test_a_cursor_of_other_filters_is_refused(made_by: PageQuery, given_to: PageQuery) -> None:
    cursor = made_by.cursor_after((8,))

    with pytest.raises(RequestInvalid) as refusal:
        given_to.model_copy(update={"cursor": cursor}).position()

    assert refusal.value.errors[0].detail == "Belongs to a list with other filters."


@pytest.mark.parametrize(
    "position", ["[8]x", "[0]", "[]", "[8,9]", "8", "[9223372036854775808]", "[8.5]", "[null]"]
)
async def test_a_forged_position_is_refused(client: Client, position: str) -> None:
    genuine = base64.urlsafe_b64decode(FindCounters().cursor_after((8,)))
    forged = base64.urlsafe_b64encode(genuine.partition(b" ")[0] + b" " + position.encode()).decode()

    reply = await client.get("/counters", params={"cursor": forged})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["query:cursor"]


@pytest.mark.parametrize("cursor", ["x", "", "AAAA", "%00", "ümlaut", "YWJj", "MTIz IFs4XQ==", "🦄"])
async def test_garbage_is_no_cursor(client: Client, cursor: str) -> None:
    reply = await client.get("/counters", params={"cursor": cursor})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["query:cursor"]


async def test_pages_show_every_row_once_while_rows_are_inserted(
    counters: tuple[Client, Database],
) -> None:
    client, database = counters
    seen: list[int] = []
    cursor: str | None = ""

    async def insert(session: AsyncSession) -> None:
        session.add(Counter(id=100 + len(seen), value=0))

    while cursor is not None:
        page = (
            await client.get("/counters", params={"limit": "3"} | ({"cursor": cursor} if cursor else {}))
        ).json
        seen.extend(counter["id"] for counter in page["data"])
        cursor = page["meta"]["next_cursor"]
        await database.transact(insert)

    assert seen == list(range(10, 0, -1))


async def test_a_full_last_page_is_the_last(counters: tuple[Client, Database]) -> None:
    client, _ = counters

    first = (await client.get("/counters?limit=5")).json
    last = (await client.get("/counters", params={"limit": "5", "cursor": first["meta"]["next_cursor"]})).json

    assert first["meta"]["has_next"]
    assert [counter["id"] for counter in last["data"]] == [5, 4, 3, 2, 1]
    assert last["meta"] == {"limit": 5, "next_cursor": None, "has_next": False}


async def test_filters_go_on_with_the_cursor(counters: tuple[Client, Database]) -> None:
    client, _ = counters

    first = (await client.get("/counters?limit=2&above=70")).json
    cursor = first["meta"]["next_cursor"]
    last = (await client.get("/counters", params={"limit": "2", "above": "70", "cursor": cursor})).json
    other = await client.get("/counters", params={"limit": "2", "above": "60", "cursor": cursor})

    assert [counter["id"] for counter in first["data"] + last["data"]] == [10, 9, 8]
    refused(other, 400, "request.invalid")
