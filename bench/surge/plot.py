"""The picture: a column for each way of scaling, a row for each thing to see; SVG for light and dark."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1010, 764
LEFT, TOP, GAP_X, GAP_Y = 52, 124, 68, 62
PANEL_WIDTH, PANEL_HEIGHT = 420, 160
_LIGHT = "--ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --paper: #ffffff"
_DARK = "--ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --paper: #0d1117"
_COLOURS = {"a": ("#0969da", "#4493f8"), "b": ("#bc4c00", "#f0883e"), "c": ("#1a7f37", "#3fb950"),
            "d": ("#8250df", "#ab7df8"), "ink": ("#1f2328", "#e6edf3")}  # fmt: skip
"""Of the lines, on light and on dark paper."""


def _style() -> str:
    light = "; ".join(f"--{name}: {colour}" for name, (colour, _) in _COLOURS.items())
    dark = "; ".join(f"--{name}: {colour}" for name, (_, colour) in _COLOURS.items())
    lines = [
        f"svg {{ font: 13px system-ui, sans-serif; {_LIGHT}; {light} }}",
        f"@media (prefers-color-scheme: dark) {{ svg {{ {_DARK}; {dark} }} }}",
        ".paper { fill: var(--paper) } text { fill: var(--ink) }",
        ".faint { fill: var(--faint); font-size: 12px }",
        ".title { font-size: 16px; font-weight: 600 } .head { font-weight: 600 }",
        ".grid { stroke: var(--line); fill: none } .shade { fill: var(--faint); opacity: 0.1 }",
        ".limit { stroke: var(--faint); stroke-dasharray: 4 4 }",
        *(
            f".{name} {{ fill: none; stroke: var(--{name}); stroke-width: 2; stroke-linejoin: round }}"
            for name in _COLOURS
        ),
    ]
    return "\n    ".join(lines)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, the class of its colour, and a value for each second."""

    name: str
    colour: str
    values: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """The panels of one way of scaling, from the top."""

    title: str
    panels: "Sequence[Panel]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One small picture: `top` is the end of its axis, `limit` a value worth a line, with its meaning."""

    title: str
    lines: Sequence[Line]
    top: float
    ticks: Sequence[float]
    limit: tuple[float, str] | None = None


def picture(
    title: str, subtitle: str, columns: Sequence[Column], shade: tuple[float, float], minutes: int
) -> str:
    """All columns under one title; the seconds of the surge are shaded, time goes to `minutes`."""
    drawn = [
        f'<text class="title" x="{LEFT}" y="30">{escape(title)}</text>',
        f'<text class="faint" x="{LEFT}" y="50">{escape(subtitle)}</text>',
    ]
    for number, column in enumerate(columns):
        x = LEFT + number * (PANEL_WIDTH + GAP_X)
        drawn.append(f'<text class="title" x="{x}" y="86">{escape(column.title)}</text>')
        for row, panel in enumerate(column.panels):
            drawn += _panel(panel, x, TOP + row * (PANEL_HEIGHT + GAP_Y), shade, minutes)
    body = "\n  ".join(drawn)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">\n'
        f"  <style>\n    {_style()}\n  </style>\n"
        f'  <rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>\n  {body}\n</svg>\n'
    )


def _panel(panel: Panel, left: float, top: float, shade: tuple[float, float], minutes: int) -> Iterable[str]:
    bottom, right = top + PANEL_HEIGHT, left + PANEL_WIDTH

    def x(second: float) -> float:
        return left + PANEL_WIDTH * second / (60 * minutes)

    def y(value: float) -> float:
        return bottom - PANEL_HEIGHT * min(value, panel.top) / panel.top

    yield f'<text class="head" x="{left}" y="{top - 12}">{escape(panel.title)}</text>'
    yield from _legend(panel, right, top - 12)
    width = x(shade[1]) - x(shade[0])
    yield f'<rect class="shade" x="{x(shade[0]):.1f}" y="{top}" width="{width:.1f}" height="{PANEL_HEIGHT}"/>'
    for tick in panel.ticks:
        yield f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>'
        yield f'<text class="faint" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for minute in range(0, minutes + 1, 5):
        at = x(60 * minute)
        yield f'<path class="grid" d="M{at:.1f} {bottom}v5"/>'
        label = f"{minute} min" if minute == minutes else f"{minute}"
        yield f'<text class="faint" x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{label}</text>'
    if panel.limit is not None:
        value, meaning = panel.limit
        yield f'<path class="limit" d="M{left} {y(value):.1f}H{right}"/>'
        place = f'x="{right - 4}" y="{y(value) - 5:.1f}" text-anchor="end"'
        yield f'<text class="faint" {place}>{escape(meaning)}</text>'
    for line in panel.lines:
        dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
        yield f'<path class="{line.colour}"{dashes} d="{_path(line.values, x, y)}"/>'


def _legend(panel: Panel, right: float, y: float) -> Iterable[str]:
    """The names of the lines, each behind a piece of its own, from the right."""
    at = right
    for line in reversed(panel.lines):
        if not line.name:
            continue
        at -= 7.2 * len(line.name)
        dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
        yield f'<text class="faint" x="{at:.1f}" y="{y}">{escape(line.name)}</text>'
        yield f'<path class="{line.colour}"{dashes} d="M{at - 24:.1f} {y - 4}h18"/>'
        at -= 38


def _path(values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """A path through the values of all seconds, without those that equal both neighbours."""
    kept = [
        second
        for second, value in enumerate(values)
        if second in (0, len(values) - 1)
        or round(values[second - 1], 2) != round(value, 2)
        or round(values[second + 1], 2) != round(value, 2)
    ]
    return "M" + "L".join(f"{x(second):.1f} {y(values[second]):.1f}" for second in kept)
