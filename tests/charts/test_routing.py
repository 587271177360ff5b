"""The evaluator of routes, on the examples of the documentation of Kubernetes and of the Gateway API."""

from typing import Any

import pytest

from tests.charts.routing import Backend, arrives

HOST = "shop.example"


def ingress(*paths: tuple[str, str, str], host: str | None = None) -> dict[str, Any]:
    return {
        "kind": "Ingress",
        "spec": {
            "rules": [
                {
                    **({"host": host} if host else {}),
                    "http": {
                        "paths": [
                            {
                                "pathType": kind,
                                "path": path,
                                "backend": {"service": {"name": name, "port": {"number": 80}}},
                            }
                            for kind, path, name in paths
                        ]
                    },
                }
            ]
        },
    }


def http_route(
    *rules: tuple[dict[str, Any], str | None], hostnames: list[str] | None = None
) -> dict[str, Any]:
    return {
        "kind": "HTTPRoute",
        "spec": {
            "hostnames": hostnames,
            "rules": [
                {"matches": [match], **({"backendRefs": [{"name": name, "port": 80}]} if name else {})}
                for match, name in rules
            ],
        },
    }


@pytest.mark.parametrize(
    ("kind", "path", "request_path", "matches"),
    [
        ("Prefix", "/", "/anything/at/all", True),
        ("Exact", "/foo", "/foo", True),
        ("Exact", "/foo", "/bar", False),
        ("Exact", "/foo", "/foo/", False),
        ("Exact", "/foo/", "/foo", False),
        ("Prefix", "/foo", "/foo/", True),
        ("Prefix", "/foo/", "/foo", True),
        ("Prefix", "/foo/", "/foo/", True),
        ("Prefix", "/aaa/bb", "/aaa/bbb", False),
        ("Prefix", "/aaa/bbb", "/aaa/bbb/ccc", True),
        ("Prefix", "/aaa/bbb", "/aaa/bbbxyz", False),
    ],
)
def test_a_path_matches_as_a_whole_or_by_its_elements(
    kind: str,
    path: str,
    request_path: str,
    matches: bool,  # noqa: FBT001 - the expected value
) -> None:
    match = {"path": {"type": kind.replace("Prefix", "PathPrefix"), "value": path}}
    for route in (ingress((kind, path, "a")), http_route((match, "a"))):
        assert arrives([route], HOST, "GET", request_path) == (Backend("a", 80) if matches else None)


def test_the_exact_path_wins_then_the_longest() -> None:
    route = ingress(
        ("Prefix", "/", "a"), ("Prefix", "/x/y", "b"), ("Prefix", "/x", "c"), ("Exact", "/x", "d")
    )

    found = [arrives([route], HOST, "GET", path) for path in ("/z", "/x/y/z", "/x/z", "/x")]

    assert [backend.service for backend in found if backend] == ["a", "b", "c", "d"]


def test_a_rule_without_a_backend_answers_by_itself() -> None:
    hidden = {"path": {"value": "/a/internal"}}
    route = http_route(({"path": {"value": "/a"}}, "a"), (hidden, None))

    assert arrives([route], HOST, "GET", "/a/other") == Backend("a", 80)
    assert arrives([route], HOST, "GET", "/a/internal/1") is None


def test_a_method_narrows_a_match() -> None:
    route = http_route(({"path": {"value": "/a"}, "method": "GET"}, "a"))

    assert arrives([route], HOST, "GET", "/a") == Backend("a", 80)
    assert arrives([route], HOST, "POST", "/a") is None


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("shop.example", "shop.example", True),
        ("shop.example", "other.example", False),
        ("*.example", "shop.example", True),
        ("*.example", "a.shop.example", False),
    ],
)
def test_a_host_matches(pattern: str, host: str, matches: bool) -> None:  # noqa: FBT001 - the expected value
    for route in (ingress(("Prefix", "/", "a"), host=pattern), http_route(({}, "a"), hostnames=[pattern])):
        assert (arrives([route], host, "GET", "/") is not None) is matches


@pytest.mark.parametrize(
    "route",
    [
        ingress(("ImplementationSpecific", "/", "a")),
        http_route(({"path": {"type": "RegularExpression", "value": "/.*"}}, "a")),
        http_route(({"headers": []}, "a")),
    ],
)
def test_what_depends_on_the_controller_is_no_answer(route: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"depends on the controller|not known here"):
        arrives([route], HOST, "GET", "/")
