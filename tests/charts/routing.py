"""Where a request from outside arrives: Ingress and HTTPRoute, read as their specifications say.

Both match a path as a whole (`Exact`) or by its first elements (`Prefix`, `PathPrefix`): `/a` means `/a` and
`/a/b`, never `/ab`. The exact one wins, then the longest.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple


class Backend(NamedTuple):
    """A port of a Service."""

    service: str
    port: int | str


class _Match(NamedTuple):
    exact: bool
    length: int
    with_method: bool
    backend: Backend | None


def arrives(routes: Iterable[Mapping[str, Any]], host: str, method: str, path: str) -> Backend | None:
    """The backend that a controller hands the request to; None where it answers itself, with 404.

    Raises:
        ValueError: the meaning of the route depends on the controller, or is not known here.

    """
    matches = [match for route in routes for match in _matches(route, host, method, path)]
    best = max(matches, default=None, key=lambda match: match[:3])
    return None if best is None else best.backend


def _matches(route: Mapping[str, Any], host: str, method: str, path: str) -> Iterator[_Match]:
    kind = route["kind"]
    if kind == "Ingress":
        yield from _of_ingress(route["spec"], host, path)
    elif kind == "HTTPRoute":
        yield from _of_http_route(route["spec"], host, method, path)
    else:
        raise ValueError(f"{kind} is no route")


def _of_ingress(spec: Mapping[str, Any], host: str, path: str) -> Iterator[_Match]:
    if "defaultBackend" in spec:
        yield _Match(
            exact=False, length=-1, with_method=False, backend=_service(spec["defaultBackend"]["service"])
        )
    for rule in spec["rules"]:
        if _is_host(rule.get("host"), host):
            for candidate in rule["http"]["paths"]:
                if _is_path(candidate["pathType"], candidate["path"], path):
                    yield _Match(
                        candidate["pathType"] == "Exact",
                        len(candidate["path"].rstrip("/")),
                        with_method=False,
                        backend=_service(candidate["backend"]["service"]),
                    )


def _service(service: Mapping[str, Any]) -> Backend:
    port = service["port"]
    return Backend(service["name"], port.get("number") or port["name"])


def _of_http_route(spec: Mapping[str, Any], host: str, method: str, path: str) -> Iterator[_Match]:
    if not any(_is_host(name, host) for name in spec.get("hostnames") or [None]):
        return
    for rule in spec["rules"]:
        if rule.get("filters"):
            raise ValueError("filters change requests")
        backends = [Backend(ref["name"], ref["port"]) for ref in rule.get("backendRefs", ())]
        if len(backends) > 1:
            raise ValueError("which of several backends it is, is for the controller")
        for match in rule.get("matches") or [{}]:
            if unknown := set(match) - {"path", "method"}:
                raise ValueError(f"{unknown} is not known here")
            wanted = match.get("path", {})
            kind, value = wanted.get("type", "PathPrefix"), wanted.get("value", "/")
            if _is_path(kind, value, path) and match.get("method", method) == method:
                yield _Match(
                    kind == "Exact",
                    len(value.rstrip("/")),
                    "method" in match,
                    backends[0] if backends else None,
                )


def _is_host(pattern: str | None, host: str) -> bool:
    if not pattern:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and "." not in host.removesuffix(pattern[1:])
    return pattern == host


def _is_path(kind: str, value: str, path: str) -> bool:
    if kind == "Exact":
        return path == value
    if kind in ("Prefix", "PathPrefix"):
        prefix = value.rstrip("/")
        return path == prefix or path.startswith(prefix + "/")
    raise ValueError(f"what {kind} means depends on the controller")
