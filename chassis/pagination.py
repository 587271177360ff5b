"""Keyset pagination: a page continues after the last row seen, found through an index.

Rows that are inserted meanwhile move nothing, and page 10,000 costs what page 1 costs. Lists run
from the newest row to the oldest. A cursor is opaque to clients and bound to the filters of its list.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Generic, NoReturn, TypeVar

from pydantic import Field, TypeAdapter

from chassis.errors import FieldError, RequestInvalid
from chassis.http import Id, Schema, View

V = TypeVar("V", bound=View)
Row = TypeVar("Row")


class PageQuery(Schema):
    """The query parameters that every list takes."""

    limit: Annotated[int, Field(ge=1, le=100, description="rows a page")] = 20
    cursor: Annotated[
        str | None,
        Field(max_length=512, description="`next_cursor` of the page before, with the same filters"),
    ] = None

    position_type: ClassVar[TypeAdapter[Any]] = TypeAdapter(tuple[Id])
    """What identifies a row in the order of the list."""

    def position(self) -> Any:  # noqa: ANN401 - see position_type
        """Where the page before ended; None for the first page.

        Raises:
            RequestInvalid: the cursor is none of ours, or belongs to other filters.

        """
        if self.cursor is None:
            return None
        try:
            filters, _, position = base64.urlsafe_b64decode(self.cursor.encode()).partition(b" ")
            after = self.position_type.validate_json(position)
        except ValueError:
            _refuse("Wants the `next_cursor` of the page before.")
        if filters != self._filters():
            _refuse("Belongs to a list with other filters.")
        return after

    def cursor_after(self, position: tuple[Any, ...]) -> str:
        """The cursor of a page that ended at `position`."""
        return base64.urlsafe_b64encode(
            self._filters() + b" " + self.position_type.dump_json(position)
        ).decode()

    def _filters(self) -> bytes:
        given = self.model_dump_json(exclude={"limit", "cursor"})
        return hashlib.sha256(f"{type(self).__name__} {given}".encode()).hexdigest()[:12].encode()


def _refuse(detail: str) -> NoReturn:
    raise RequestInvalid("The cursor is not valid.", errors=[FieldError("query:cursor", detail)])


class PageMeta(View):
    """Where a page stands in its list."""

    limit: int
    next_cursor: str | None
    has_next: bool


class Page(View, Generic[V]):
    """A page of a list."""

    data: list[V]
    meta: PageMeta

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        query: PageQuery,
        view: Callable[[Row], V],
        position: Callable[[Row], tuple[Any, ...]],
    ) -> "Page[V]":
        """Make a page of up to `limit` + 1 rows; the one too many tells that there is a next page."""
        has_next = len(rows) > query.limit
        shown = rows[: query.limit]
        next_cursor = query.cursor_after(position(shown[-1])) if has_next else None
        meta = PageMeta(limit=query.limit, next_cursor=next_cursor, has_next=has_next)
        return cls(data=[view(row) for row in shown], meta=meta)
