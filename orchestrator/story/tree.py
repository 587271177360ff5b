"""A trace as a tree, with durations and when in the whole they were.

console.print(tree(traces.of(trace_id), console.width))
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from orchestrator.story.spans import Span

_NOTED = ("http.response.status_code", "saga.outcome", "error.type")
_SERVICE_WIDTH, _MS_WIDTH, _BAR_WIDTH = 12, 6, 20
_WIDTH_FOR_BARS, _MAX_WIDTH = 100, 120


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree: a span, or statements in a row that belong to the same span."""

    guide: str
    spans: Sequence[Span]
    continued_in: Sequence[str] = ()

    @property
    def label(self) -> str:
        """What it did and how it ended."""
        first = self.spans[0]
        if first.is_statement:
            return " · ".join(_statements(self.spans))
        name = first.name
        if first.is_call:
            name = f"call {first.name} {urlsplit(str(first.attributes.get('url.full', ''))).path}"
        # As keys of a dict: the client instrumentation says a refusal's status twice.
        notes = list(
            dict.fromkeys(str(first.attributes[noted]) for noted in _NOTED if noted in first.attributes)
        )
        if (resends := first.attributes.get("http.request.resend_count")) is not None:
            notes.append(f"repetition {resends}")
        notes += [f"· linked to trace {trace_id}" for trace_id, _ in first.links]
        notes += [f"· continued in trace {trace_id}" for trace_id in self.continued_in]
        return " ".join((name, *notes))

    @property
    def failed(self) -> bool:
        """Whether something in it is marked as an error."""
        return any(span.failed for span in self.spans)


def rows(spans: Sequence[Span], others: Iterable[Span] = ()) -> Iterator[Row]:
    """The lines of the tree. A span whose parent is not among `spans` is a root.

    `others` are spans of other traces: those that are linked to this one continue it.
    """
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent_id, []).append(span)
    continued: dict[str, list[str]] = {}
    for other in others:
        for _, span_id in other.links:
            continued.setdefault(span_id, []).append(other.trace_id)
    for root in spans:
        if root.parent_id not in known:
            yield Row("", [root], continued.get(root.span_id, ()))
            yield from _below(root, children, continued, "")


def _below(
    parent: Span, children: Mapping[str, list[Span]], continued: Mapping[str, list[str]], indent: str
) -> Iterator[Row]:
    groups = _folded(children.get(parent.span_id, ()))
    for number, group in enumerate(groups, start=1):
        branch, beside = ("└─ ", "   ") if number == len(groups) else ("├─ ", "│  ")
        yield Row(indent + branch, group, continued.get(group[0].span_id, ()))
        if not group[0].is_statement:
            yield from _below(group[0], children, continued, indent + beside)


def _folded(spans: Iterable[Span]) -> list[list[Span]]:
    """Each span for itself, except that statements in a row stand together."""
    folded: list[list[Span]] = []
    for span in spans:
        if folded and span.is_statement and folded[-1][0].is_statement:
            folded[-1].append(span)
        else:
            folded.append([span])
    return folded


def _statements(spans: Sequence[Span]) -> Iterator[str]:
    """The operations in their order, each with its tables: `INSERT orders, order_items x2`."""
    told = (span for span in spans if span.failed or span.attributes["db.operation.name"] != "BEGIN")
    for operation, run in groupby(told, key=lambda span: str(span.attributes["db.operation.name"])):
        tables = Counter(map(_table, run))
        named = ", ".join(
            name if count == 1 else f"{name} x{count}" for name, count in tables.items() if name
        )
        yield f"{operation} {named}".strip()


def _table(statement: Span) -> str:
    """The table of a statement and, if it failed, the driver's error."""
    noted = ("db.collection.name", *(("error.type", "db.response.status_code") if statement.failed else ()))
    words = (str(statement.attributes.get(name, "none")) for name in noted)
    return " ".join(word for word in words if word != "none")


def tree(spans: Sequence[Span], width: int, others: Iterable[Span] = ()) -> Table:
    """The trace as a tree, at most `width` characters wide, with durations and, if there is room, bars.

    `others` are spans of other traces, which may continue this one.
    """
    with_bars = width >= _WIDTH_FOR_BARS
    fixed = _SERVICE_WIDTH + _MS_WIDTH + (_BAR_WIDTH if with_bars else 0) + 3
    label_width = max(min(width, _MAX_WIDTH) - fixed, 20)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("span", no_wrap=True, width=label_width)
    table.add_column("service", no_wrap=True, width=_SERVICE_WIDTH)
    table.add_column("ms", no_wrap=True, width=_MS_WIDTH, justify="right")
    if with_bars:
        table.add_column("start … end", no_wrap=True, width=_BAR_WIDTH)
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    for row in rows(spans, others):
        start, end = row.spans[0].start, row.spans[-1].end
        style = "red" if row.failed else "dim" if row.spans[0].is_statement else "default"
        table.add_row(
            _wrapped(row, label_width, style),
            row.spans[0].service,
            f"{sum(span.end - span.start for span in row.spans) / 1e6:.1f}",
            *([_bar(start - first, end - first, last - first)] if with_bars else []),
            style=style,
        )
    return table


def _wrapped(row: Row, width: int, style: str) -> Text:
    """The label in lines of `width`, with the tree drawn on beside all of them."""
    beside = row.guide.replace("├─ ", "│  ").replace("└─ ", "   ")
    lines = textwrap.wrap(row.label, max(width - len(row.guide), 20), break_on_hyphens=False)
    text = Text()
    for number, line in enumerate(lines):
        text.append(f"\n{beside}" if number else row.guide, style="dim")
        text.append(line, style=style)
    return text


def _bar(start: int, end: int, whole: int) -> str:
    """A line as long as the trace, strong where the span was."""
    scale = _BAR_WIDTH / max(whole, 1)
    left = min(int(start * scale), _BAR_WIDTH - 1)
    right = max(left + 1, round(end * scale))
    return "·" * left + "━" * (right - left) + "·" * (_BAR_WIDTH - right)
