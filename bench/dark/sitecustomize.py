"""Imported by Python itself in a process with this folder on PYTHONPATH: its metrics measure nothing.

The services have no switch for this, since nobody should run them so; it is for the benchmark alone.
"""

import prometheus_client


class Nothing:
    """A metric of any kind."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        pass

    def labels(self, *_values: object, **_labels: object) -> "Nothing":
        """Take any labels."""
        return self

    def _ignore(self, *_arguments: object, **_options: object) -> None:
        pass

    inc = dec = set = observe = info = set_function = _ignore


for _kind in ("Counter", "Gauge", "Histogram", "Info"):
    setattr(prometheus_client, _kind, Nothing)
