import pytest
from pydantic import ValidationError

from chassis import settings
from orchestrator.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tests' own environment out of the way."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_defaults_are_the_ports_of_the_contract_and_a_lease_that_outlives_a_step() -> None:
    loaded = Settings()

    assert (loaded.port, loaded.admin_port) == (3010, 9010)
    assert loaded.customers_api_base == "http://localhost:3001"
    assert loaded.orders_api_base == "http://localhost:3002"
    assert loaded.join_timeout == 10
    assert loaded.saga_lease > loaded.peer_deadline + loaded.peer_timeout


def test_the_names_of_the_predecessor_lead_to_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMERS_API_BASE", "http://customers.example.com/")
    monkeypatch.setenv("ORDERS_API_BASE", "https://orders.example.com")

    loaded = Settings()

    assert loaded.customers_api_base == "http://customers.example.com"
    assert loaded.orders_api_base == "https://orders.example.com"


@pytest.mark.parametrize("lease", ["1", "16"])
def test_a_lease_that_a_step_may_outlive_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lease: str
) -> None:
    monkeypatch.setenv("SAGA_LEASE", lease)

    with pytest.raises(SystemExit) as stopped:
        settings.load(Settings)

    assert stopped.value.code == 78
    assert capsys.readouterr().err.splitlines() == [
        "orchestrator cannot start: 1 bad setting(s) in the environment",
        "  SAGA_LEASE: wants more than PEER_DEADLINE + PEER_TIMEOUT, or steps outlive their lease",
    ]


def test_shorter_steps_allow_a_shorter_lease() -> None:
    assert Settings(peer_timeout=1, peer_deadline=1, saga_lease=2.1).saga_lease == 2.1


@pytest.mark.parametrize(
    "name",
    ["peer_timeout", "peer_deadline", "answer_timeout", "join_timeout", "saga_attempts", "sweep_every"],
)
def test_no_patience_at_all_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: 0})


def test_a_saga_that_is_forgotten_before_its_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGA_DAYS", "30")
    monkeypatch.setenv("IDEMPOTENCY_DAYS", "31")

    with pytest.raises(SystemExit) as stopped:
        settings.load(Settings)

    assert stopped.value.code == 78
    assert "  SAGA_DAYS: wants at least IDEMPOTENCY_DAYS" in capsys.readouterr().err
