"""Boards in Grafana's JSON: as little of it as our three need."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 39  # Grafana 10.4 and newer
TAG = "b2b-orders"
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Kind = Literal["timeseries", "stat", "table"]
Thresholds = Sequence[tuple[float | None, str]]
GOOD_IS_LOW: Thresholds = ((None, "green"),)


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: `queries` are pairs of a PromQL expression and the legend of its series.

    `unit` is one of Grafana's (`reqps`, `s`, `percentunit`, `short` …). `thresholds` are pairs of the value
    from which a colour holds, the first one without a value. With `exemplars`, single requests are dots that
    lead to their traces. `empty` is what stands there when nothing has happened that it could show.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: Thresholds = GOOD_IS_LOW
    exemplars: bool = False
    stacked: bool = False
    empty: str = ""

    def render(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel at its place."""
        steps = [{"color": color, "value": value} for value, color in self.thresholds]
        custom: dict[str, Any] = {}
        if self.kind == "timeseries":
            custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
            custom["stacking"] = {"mode": "normal" if self.stacked else "none"}
            custom["thresholdsStyle"] = {"mode": "line" if len(steps) > 1 else "off"}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "min": 0,
                    "custom": custom,
                    "thresholds": {"mode": "absolute", "steps": steps},
                    **(_nothing(self.empty) if self.empty else {}),
                },
                "overrides": [],
            },
            "options": _OPTIONS[self.kind],
            "transformations": _TABLE if self.kind == "table" else [],
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": DATASOURCE,
                    "expr": expression,
                    "legendFormat": legend,
                    "exemplar": self.exemplars,
                    "instant": self.kind != "timeseries",
                    "range": self.kind == "timeseries",
                    "format": "table" if self.kind == "table" else "time_series",
                }
                for place, (expression, legend) in enumerate(self.queries)
            ],
        }


_OPTIONS: dict[Kind, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "background",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}


_TABLE = [
    {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "replicas"}}}
]


def _nothing(text: str) -> dict[str, Any]:
    """Say so where there is no series, and where a share of nothing is no number."""
    mapping = {"type": "special", "options": {"match": "nan", "result": {"text": text, "color": "green"}}}
    return {"noValue": text, "mappings": [mapping]}


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and the panels that answer it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A board; `uid` is part of its address and never changes."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[dict[str, Any]] = field(default_factory=tuple)

    @property
    def panels(self) -> list[Panel]:
        """All of them, in order."""
        return [panel for row in self.rows for panel in row.panels]

    def render(self) -> dict[str, Any]:
        """The board, for Grafana."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "graphTooltip": 1,
            "templating": {"list": list(self.variables)},
            "links": [
                {"type": "dashboards", "title": "B2B", "tags": [TAG], "asDropdown": True, "keepTime": True},
                {"type": "link", "title": "Traces", "url": "${jaeger}", "targetBlank": True, "icon": "bolt"},
            ],
            "panels": self._placed(),
        }

    def _placed(self) -> list[dict[str, Any]]:
        placed: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            at = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            placed.append(
                {"id": len(placed) + 1, "type": "row", "title": row.title, "gridPos": at, "panels": []}
            )
            y, x, tallest = y + 1, 0, 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    y, x, tallest = y + tallest, 0, 0
                placed.append(panel.render(len(placed) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return placed


def datasource() -> dict[str, Any]:
    """The variable that says which Prometheus is asked."""
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def choice(name: str, query: str) -> dict[str, Any]:
    """A variable with the values of a label, all of them chosen at first."""
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def address(name: str, label: str, default: str) -> dict[str, Any]:
    """A variable that a person types."""
    current = {"text": default, "value": default}
    return {"name": name, "label": label, "type": "textbox", "query": default, "current": current}
