from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chassis import settings
from tests.chassis.sample import Settings
from tests.processes import run, start

OWN = {"DB_HOST": "db.example.com", "AUTH": "off", "SERVICE_TOKEN": "a secret of our own"}
JWT = {
    "AUTH": "jwt",
    "OIDC_ISSUER": "https://id.example.com/",
    "OIDC_AUDIENCE": "b2b-orders",
    "OIDC_JWKS": "https://id.example.com/jwks",
    "SERVICE_TOKEN": "a secret of our own",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tests' own environment out of the way."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_without_a_database_an_embedded_one_is_used_and_migrated() -> None:
    loaded = Settings()

    assert loaded.sqlalchemy_url.render_as_string() == "sqlite+aiosqlite:///var/sample.db"
    assert loaded.embedded
    assert loaded.migrates_at_start


def test_the_names_of_the_predecessor_lead_to_a_real_database(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, **OWN, DB_PORT="3307", DB_USERNAME="b2b", DB_PASSWORD="p@ss:/word", DB_NAME="shop")

    url = Settings().sqlalchemy_url

    assert url.drivername == "mysql+asyncmy"
    assert (url.username, url.password, url.host) == ("b2b", "p@ss:/word", "db.example.com")
    assert (url.port, url.database) == (3307, "shop")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mysql+asyncmy"])
def test_a_database_url_wins_and_is_given_our_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    _set(monkeypatch, **OWN, DATABASE_URL=f"{scheme}://b2b:pw@other.example.com/shop?charset=latin1")

    url = Settings().sqlalchemy_url

    assert url.render_as_string(hide_password=False) == "mysql+asyncmy://b2b:pw@other.example.com/shop"


@pytest.mark.parametrize(("value", "applied"), [("TRUE", True), ("false", False), ("1", True), ("", False)])
def test_synchronize_says_whether_to_migrate_at_start(
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    applied: bool,  # noqa: FBT001 - a case
) -> None:
    _set(monkeypatch, **OWN, SYNCHRONIZE=value)

    assert Settings().migrates_at_start is applied


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", []),
        ("*", ["*"]),
        ("https://a.example.com, https://b.example.com,", ["https://a.example.com", "https://b.example.com"]),
    ],
)
def test_origins_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, origins: list[str]
) -> None:
    _set(monkeypatch, CORS_ORIGINS=value)

    assert Settings().cors_origins == origins


def test_every_bad_variable_is_listed_with_what_it_got_and_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(
        monkeypatch,
        PORT="http",
        DB_POOL_SIZE="0",
        LOG_LEVEL="loud",
        DATABASE_URL="postgresql://b2b:hunter2@db/shop",
        SYNCHRONIZE="perhaps",
    )

    with pytest.raises(SystemExit) as stopped:
        settings.load(Settings)

    assert stopped.value.code == 78
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "sample cannot start: 5 bad setting(s) in the environment"
    said = dict(line.strip().split(": ", 1) for line in lines)
    assert set(said) == {"PORT", "DB_POOL_SIZE", "LOG_LEVEL", "DATABASE_URL", "SYNCHRONIZE"}
    assert said["PORT"].startswith("got 'http', input should be a valid integer")
    assert said["DB_POOL_SIZE"] == "got '0', input should be greater than or equal to 1"
    assert "'debug', 'info', 'warning' or 'error'" in said["LOG_LEVEL"]
    assert said["DATABASE_URL"] == "wants mysql://user:password@host:3306/name or sqlite:///path"
    assert said["SYNCHRONIZE"].startswith("got 'perhaps', input should be a valid boolean")


@pytest.mark.parametrize("token", [None, ""])
def test_a_real_database_wants_a_service_token_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str | None
) -> None:
    _set(monkeypatch, DB_HOST="db.example.com", AUTH="off", PORT="-1")
    if token is not None:
        _set(monkeypatch, SERVICE_TOKEN=token)

    with pytest.raises(SystemExit):
        settings.load(Settings)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sample cannot start: 2 bad setting(s) in the environment"
    assert (
        "  SERVICE_TOKEN: wants a secret, the same in all services, when the database is a real one" in lines
    )


def test_a_database_url_without_a_schema_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(monkeypatch, DATABASE_URL="mysql://b2b:hunter2@db.example.com", AUTH="off", SERVICE_TOKEN="own")

    with pytest.raises(SystemExit):
        settings.load(Settings)

    assert "DATABASE_URL: wants a schema name at its end" in capsys.readouterr().err


@pytest.mark.parametrize(
    "values",
    [
        {"DATABASE_URL": "mysql://b2b:hunter2@:no-port/"},
        {"DATABASE_URL": "hunter2"},
        {"DB_HOST": "db", "DB_PASSWORD": "hunter2", "SERVICE_TOKEN": ""},
        {"DB_HOST": "db", "DB_PASSWORD": "hunter2", "DB_PORT": "x", "SERVICE_TOKEN": "hunter2"},
    ],
)
def test_no_secret_is_ever_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: dict[str, str]
) -> None:
    _set(monkeypatch, **values)

    with pytest.raises(SystemExit):
        settings.load(Settings)

    assert "hunter2" not in capsys.readouterr().err


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, DB_HOST="db", AUTH="off", DB_PASSWORD="hunter2", SERVICE_TOKEN="hunter2")

    assert "hunter2" not in repr(Settings())


def test_settings_cannot_be_changed() -> None:
    loaded = Settings()

    with pytest.raises(ValidationError):
        loaded.port = 1  # type: ignore[misc]  # that it cannot be assigned is the point


@pytest.mark.parametrize("url", ["ftp://orders", "orders:3002", "http://", "//orders"])
def test_the_address_of_a_peer_is_an_http_address(url: str) -> None:
    class Caller(Settings):
        peer_api_base: settings.BaseUrl = "http://localhost"

    with pytest.raises(ValidationError, match="wants an http:// or https:// address"):
        Caller(peer_api_base=url)
    assert Caller(peer_api_base="https://orders/base/").peer_api_base == "https://orders/base"


# --- who may call -------------------------------------------------------------------------------


def _complaints(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What is said of each variable when the settings are refused."""
    with pytest.raises(SystemExit) as stopped:
        settings.load(Settings)
    assert stopped.value.code == 78
    _, *lines = capsys.readouterr().err.splitlines()
    return dict(line.strip().split(": ", 1) for line in lines)


@pytest.mark.parametrize("where", [{"DB_HOST": "db"}, {"DATABASE_URL": "mysql://b2b@db.example.com/shop"}])
def test_a_real_database_wants_a_decision_about_callers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: dict[str, str]
) -> None:
    _set(monkeypatch, **where, SERVICE_TOKEN="own")

    said = _complaints(capsys)

    assert set(said) == {"AUTH"}
    assert said["AUTH"].startswith("wants jwt (callers send access tokens, see OIDC_ISSUER) or off (whoever")


@pytest.mark.parametrize("where", [{"DB_HOST": "db", "SERVICE_TOKEN": "own"}, {}])
@pytest.mark.parametrize("decision", [{"AUTH": "off"}, JWT])
def test_with_a_decision_any_database_will_do(
    monkeypatch: pytest.MonkeyPatch, where: dict[str, str], decision: dict[str, str]
) -> None:
    _set(monkeypatch, **{**where, **decision})

    assert Settings().auth == decision["AUTH"]


def test_everything_that_is_wrong_about_the_provider_is_listed_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(
        monkeypatch,
        AUTH="jwt",
        OIDC_ISSUER="https://id.example.com/ x",
        OIDC_JWKS="nowhere/jwks.json",
        OIDC_ALGORITHMS="RS256,HS256,none",
        OIDC_LEEWAY="61",
        PORT="-1",
    )

    said = _complaints(capsys)

    assert set(said) == {
        "PORT",
        "OIDC_ISSUER",
        "OIDC_AUDIENCE",
        "OIDC_JWKS",
        "OIDC_ALGORITHMS",
        "OIDC_LEEWAY",
        "SERVICE_TOKEN",
    }
    assert said["OIDC_AUDIENCE"] == "wants a value when AUTH is jwt"
    assert said["OIDC_LEEWAY"] == "got '61', input should be less than or equal to 60"
    assert (
        said["OIDC_JWKS"]
        == "got 'nowhere/jwks.json', wants files that can be read: No such file or directory"
    )


@pytest.mark.parametrize("name", ["OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_JWKS"])
def test_each_of_the_provider_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _set(monkeypatch, **{**JWT, name: ""})

    assert _complaints(capsys) == {name: "wants a value when AUTH is jwt"}


def test_with_access_tokens_the_service_token_that_everybody_knows_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With it, anybody could call in the name of anybody."""
    _set(monkeypatch, **{**JWT, "SERVICE_TOKEN": ""})

    assert _complaints(capsys) == {
        "SERVICE_TOKEN": "wants a secret, the same in all services, when AUTH is jwt"
    }

    file = tmp_path / "token"
    file.write_text("a secret of our own")
    _set(monkeypatch, SERVICE_TOKEN_FILE=str(file))
    assert Settings().service_token.get_secret_value() == ""


@pytest.mark.parametrize("algorithm", ["HS256", "none", "", ",", "rs256"])
def test_only_signatures_with_a_key_pair_can_be_allowed(
    monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    _set(monkeypatch, **JWT, OIDC_ALGORITHMS=algorithm)

    if algorithm:
        with pytest.raises(ValidationError):
            Settings()
    else:
        assert Settings().oidc_algorithms == ["RS256", "ES256"]


def test_a_provider_without_a_decision_to_use_it_is_no_open_door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(monkeypatch, **{**JWT, "AUTH": ""})

    said = _complaints(capsys)

    assert set(said) == {"OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_JWKS"}
    assert all(wants.endswith("wants AUTH to be jwt") for wants in said.values())


def test_a_process_on_a_real_database_without_a_decision_does_not_start() -> None:
    ended = run("customers", "serve", DB_HOST="db.example.com", SERVICE_TOKEN="own")

    first, second = ended.stderr.splitlines()
    assert ended.returncode == 78
    assert first == "customers cannot start: 1 bad setting(s) in the environment"
    assert second.startswith("  AUTH: wants jwt (callers send access tokens, see OIDC_ISSUER) or off")


@pytest.mark.parametrize("auth", ["on", "JWT", "oidc", "true"])
def test_there_is_no_third_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], auth: str
) -> None:
    _set(monkeypatch, AUTH=auth)

    assert set(_complaints(capsys)) == {"AUTH"}


def test_a_process_with_bad_settings_ends_with_78_and_without_a_traceback() -> None:
    bad = {"PORT": "http", "DATABASE_URL": "postgresql://b2b:hunter2@db/shop"}

    processes = [start("customers", command, **bad) for command in ("serve", "migrate")]

    for process in processes:
        said, errors = process.communicate()
        assert process.returncode == 78
        assert said == ""
        assert [line.partition(":")[0].strip() for line in errors.splitlines()] == [
            "customers cannot start",
            "PORT",
            "DATABASE_URL",
        ]
        assert "hunter2" not in errors


def _set(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_database_is_waited_for_longer_than_a_row() -> None:
    with pytest.raises(ValidationError, match="DB_LOCK_TIMEOUT"):
        Settings(db_lock_timeout=10, db_timeout=10)
