"""Expressions in PromQL that several panels need, and the labels they are about."""

ALL = 'namespace=~"$namespace", job=~"$job"'
"""The replicas that a person chose."""
SHOP = 'namespace=~"$namespace"'
HTTP = "http_server_request_duration_seconds"
W = "$__rate_interval"


def quantile(share: float, histogram: str, labels: str, by: str) -> str:
    """A quantile of a histogram, a series for each value of the labels `by`."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({histogram}_bucket{{{labels}}}[{W}])))"


def rate(counter: str, labels: str, by: str) -> str:
    """Events a second, a series for each value of the labels `by`."""
    return f"sum by ({by}) (rate({counter}{{{labels}}}[{W}]))"


def share(part: str, whole: str) -> str:
    """The part of the whole; zero while there is a whole and no part."""
    return f"(({part}) or ({whole}) * 0) / ({whole})"


def top(expression: str) -> str:
    """The ten greatest."""
    return f"topk(10, {expression})"
