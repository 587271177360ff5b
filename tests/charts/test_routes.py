"""Where requests from outside arrive: every operation at its service, and nothing else anywhere."""

import re

import pytest

from chassis.settings import Settings
from customers.app import create_app
from customers.settings import Settings as CustomersSettings
from dev.docs import SERVICES as DECLARED
from tests.charts.examples import NEEDED, OF_OPERATORS, OTHERWISE
from tests.charts.rendering import SERVICES, Object, merged, refusal, render
from tests.charts.routing import Backend, arrives
from tests.client import Serve
from tests.databases import MakeSettings

HOST = "orders.example.com"
INTERNAL = "/admin/customers/internal"
ROUTES = {"Ingress": OF_OPERATORS, "HTTPRoute": OTHERWISE}
OPERATIONS = [
    (service, operation.method, re.sub(r"\{\w+\}", "7", operation.path))
    for service, (_, groups) in DECLARED.items()
    for group in groups
    for operation in group.operations
]
every_kind = pytest.mark.parametrize("kind", ROUTES)


def route(kind: str) -> Object:
    """The one route of a release."""
    (found,) = render(ROUTES[kind]).all(kind)
    return found


def port(kind: str, settings: type[Settings]) -> int | str:
    return "http" if kind == "Ingress" else int(settings.model_fields["port"].default)


@every_kind
def test_every_public_operation_arrives_at_its_service(kind: str) -> None:
    public = [one for one in OPERATIONS if not one[2].startswith(INTERNAL)]

    assert len(public) == len(OPERATIONS) - 1 > 20
    for service, method, path in public:
        expected = Backend(f"b2b-{service}", port(kind, DECLARED[service][0]))
        assert arrives([route(kind)], HOST, method, path) == expected, path


@every_kind
@pytest.mark.parametrize(
    "path",
    [
        INTERNAL,
        f"{INTERNAL}/",
        f"{INTERNAL}/customers/7",
        "/admin/customers",
        "/admin/customers/",
        "/admin",
        "/admin/customersx/find-all",
        "/admin/customers/find-allx",
        "/livez",
        "/readyz",
        "/startupz",
        "/metrics",
        "/log-level",
        "/health",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_what_is_not_public_arrives_nowhere(kind: str, path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        assert arrives([route(kind)], HOST, method, path) is None


@every_kind
def test_no_route_leads_to_an_admin_port(kind: str) -> None:
    release = render(ROUTES[kind])
    targets = set()
    for _, method, path in OPERATIONS:
        if (backend := arrives([route(kind)], HOST, method, path)) is not None:
            ports = release.one("Service", backend.service)["spec"]["ports"]
            targets |= {one["targetPort"] for one in ports if backend.port in (one["name"], one["port"])}

    assert targets == {"http"}


@every_kind
def test_another_host_is_none_of_ours(kind: str) -> None:
    assert arrives([route(kind)], "other.example.com", "GET", "/admin/orders/find-all") is None


@every_kind
def test_a_service_that_is_not_installed_gets_no_requests(kind: str) -> None:
    values = merged(ROUTES[kind], {"customers": {"enabled": False}})
    (found,) = render(values).all(kind)

    assert arrives([found], HOST, "GET", "/admin/customers/find-all") is None
    assert arrives([found], HOST, "GET", "/admin/orders/find-all") is not None


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("path", ["find-one/../internal/customers/7", "find-one/%2e%2e/internal/customers/7"])
async def test_a_path_with_dots_does_not_lead_from_what_is_public_to_what_is_internal(
    path: str, serve: Serve, make_settings: MakeSettings
) -> None:
    """A controller may hand on a path as it came; then it is for the service not to resolve it."""
    client = await serve(create_app(make_settings(CustomersSettings)))

    reply = await client.send(f"GET /admin/customers/{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    assert reply.status == 404
    assert reply.json["code"] != "auth.token_missing"  # what the internal operation would say


def test_without_a_switch_nothing_is_routed() -> None:
    release = render(NEEDED)

    assert release.all("Ingress") == release.all("HTTPRoute") == []
    assert {service["spec"]["type"] for service in release.all("Service")} == {"ClusterIP"}


def test_an_ingress_suits_every_controller() -> None:
    plain = merged(
        NEEDED, {"global": {"config": {"AUTH": "off"}}, "ingress": {"enabled": True, "host": HOST}}
    )
    ingress = render(plain).one("Ingress", "b2b")

    assert "annotations" not in ingress["metadata"]
    assert "ingressClassName" not in ingress["spec"]
    assert "tls" not in ingress["spec"]


def test_an_ingress_has_the_class_the_certificate_and_the_annotations_that_it_is_given() -> None:
    ingress = render(OF_OPERATORS).one("Ingress", "b2b")

    assert ingress["spec"]["ingressClassName"] == "traefik"
    assert ingress["spec"]["tls"] == [{"hosts": [HOST], "secretName": "certificate"}]
    assert ingress["metadata"]["annotations"] == OF_OPERATORS["ingress"]["annotations"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {
                "ingress": {"enabled": True, "host": HOST},
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]},
            },
            ("ingress.enabled", "httpRoute.enabled"),
        ),
        ({"ingress": {"enabled": True}}, ("ingress.host",)),
        ({"httpRoute": {"enabled": True}}, ("httpRoute.parentRefs",)),
    ],
)
def test_a_route_that_cannot_be_meant_is_refused(values: dict[str, object], told: tuple[str, ...]) -> None:
    said = refusal(merged(NEEDED, {"global": {"config": {"AUTH": "off"}}}, values))

    assert all(name in said for name in told)


def test_services_are_routed_only_once_somebody_decided_who_may_call() -> None:
    said = refusal(merged(NEEDED, {"ingress": {"enabled": True, "host": HOST}}))

    assert "global.config.AUTH" in said
    assert all(f"{service} would be reached from outside" in said for service in SERVICES)
