"""Settings come from environment variables and nowhere else.

A service subclasses Settings, names its ports and adds its own variables. Bad configuration stops
the start with one block that lists every bad variable (exit code 78, EX_CONFIG of sysexits.h).
"""

import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from chassis import failpoints
from chassis.auth.settings import Algorithm, ProviderKeys, ProviderName, TokenFile, parse_tokens

EX_CONFIG = 78
EMBEDDED_TOKEN = "internal-service-token"  # noqa: S105 - the default on the embedded database only

LogLevel = Literal["debug", "info", "warning", "error"]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("wants an http:// or https:// address")
    return value.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]
_WANTED_DATABASE = "wants mysql://user:password@host:3306/name or sqlite:///path"


def _separated(value: Any) -> Any:  # noqa: ANN401 - whatever is given
    """Take a text for a list that is separated by commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _database_url(value: str) -> str:
    if not parse_database_url(value).database:
        raise ValueError("wants a schema name at its end")
    return value


def _embedded(info: ValidationInfo) -> bool:
    """Whether the settings read so far lead to the embedded database."""
    url, host = info.data.get("database_url"), info.data.get("db_host")
    return host is None if url is None else _is_sqlite(parse_database_url(url))


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


class Settings(BaseSettings):
    """What every service can be told. The descriptions become the README's table."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    service: ClassVar[str]
    """The service's name: `service.name` in telemetry, prefix of its tables."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a container's service
    port: Port = Field(description="public port; 0 takes a free one")
    admin_port: Port = Field(description="port of `/livez`, `/readyz`, `/startupz` and `/metrics`")
    log_level: LogLevel = Field("info", description="lowest level logged")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`, `console`, or `auto`: console on a terminal"
    )

    database_url: Annotated[str, AfterValidator(_database_url)] | None = Field(
        None, description="`mysql://user:password@host:3306/name` or `sqlite:///path`; wins over `DB_*`"
    )
    db_host: str | None = Field(
        None, description="host of MariaDB or MySQL; without it, an embedded SQLite file"
    )
    db_port: Port = Field(3306, description="its port")
    db_username: str = Field("root", description="its user")
    db_password: SecretStr = Field(SecretStr(""), description="its password")
    db_name: str = Field("orchestrator", description="its schema; the services may share one")
    data_dir: Path = Field(Path("var"), description="folder of the embedded database")
    synchronize: bool | None = Field(
        None, description="apply the migrations at start; default `true` on the embedded database only"
    )
    db_pool_size: int = Field(
        10, ge=1, le=500, description="connections a process may hold, beside one for its probes"
    )
    db_pool_timeout: Seconds = Field(5, description="seconds to wait for one of them, then 503")
    db_lock_timeout: int = Field(3, ge=1, le=60, description="seconds to wait for a row lock, then retry")
    db_timeout: Seconds = Field(
        10, description="seconds a query or transaction may take before its connection is given up or cut"
    )
    db_attempts: int = Field(
        6, ge=1, le=50, description="attempts of a transaction that loses against others"
    )

    auth: Literal["jwt", "off"] | None = Field(
        None,
        validate_default=True,
        description="`jwt`: callers send access tokens of an OpenID provider; `off`: whoever reaches the "
        "port may do everything. Has to be decided with MariaDB or MySQL, `off` on the embedded database",
    )
    oidc_issuer: ProviderName = Field(
        None, validate_default=True, description="the provider: `iss` of its tokens; required with `AUTH=jwt`"
    )
    oidc_audience: ProviderName = Field(
        None, validate_default=True, description="this system: `aud` of its tokens; required with `AUTH=jwt`"
    )
    oidc_algorithms: Annotated[list[Algorithm], NoDecode, BeforeValidator(_separated)] = Field(
        ["RS256", "ES256"], min_length=1, description="what tokens may be signed with, comma-separated"
    )
    oidc_jwks: ProviderKeys = Field(
        None,
        validate_default=True,
        description="the provider's public keys: address or file of its JSON Web Key Set, fetched and read "
        "again when that is needed; required with `AUTH=jwt`",
    )
    oidc_leeway: float = Field(
        30, ge=0, le=60, description="seconds by which the clocks of provider and service may differ"
    )
    rate_limit: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="requests a second that a replica takes of one principal, then 429; default no limit",
    )
    rate_burst: int = Field(
        20, ge=1, le=1_000_000, description="requests of one principal at one go, before `RATE_LIMIT` holds"
    )
    max_requests: int | None = Field(
        None, ge=1, le=1_000_000, description="requests at once in a replica, then 503; default no limit"
    )
    service_token_file: Annotated[list[TokenFile], NoDecode, BeforeValidator(_separated)] = Field(
        [],
        description="files with such tokens, comma-separated, read again when they change; "
        "they come before those of `SERVICE_TOKEN`",
    )
    service_token: SecretStr = Field(
        SecretStr(""),
        validate_default=True,
        description="bearer token of the internal operations, the same in all services; several are "
        "comma-separated: the first one is sent, all are accepted. Required with MariaDB or MySQL "
        f"and with `AUTH=jwt`, `{EMBEDDED_TOKEN}` otherwise",
    )
    cors_origins: Annotated[list[str], NoDecode, BeforeValidator(_separated)] = Field(
        [], description="origins that browsers may call from, comma-separated, or `*`; default none"
    )
    max_body_bytes: int = Field(65_536, ge=1_024, le=67_108_864, description="largest request body")
    max_connections: int = Field(
        800, ge=1, le=100_000, description="connections held at once; then idle ones make room, or 503"
    )
    head_timeout: Seconds = Field(10, description="seconds a request head may take to arrive")
    body_timeout: Seconds = Field(
        10, description="seconds a request body may take to arrive, and the client to take an answer"
    )
    keepalive_timeout: Seconds = Field(75, description="seconds a connection may wait for a request")
    drain_seconds: float = Field(2, ge=0, le=60, description="seconds to serve on after SIGTERM, unready")
    shutdown_timeout: Seconds = Field(20, description="seconds to finish running requests after that")
    join_timeout: Seconds = Field(
        10, description="seconds a repeated request waits for the first one's answer"
    )
    idempotency_days: int = Field(
        7, ge=1, le=365, description="days a finished idempotency key is remembered"
    )

    environment: Literal["development", "test", "staging", "production"] = Field(
        "development", description="where it runs; `production` refuses what only tests need"
    )
    failpoints: str = Field(
        "", description="for tests: where the process fails on purpose, see `chassis/failpoints.py`"
    )

    @field_validator("db_timeout")
    @classmethod
    def _longer_than_locks(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds <= info.data.get("db_lock_timeout", 0):
            raise ValueError(
                "wants more than DB_LOCK_TIMEOUT, or a row that is locked looks like a dead database"
            )
        return seconds

    @field_validator("auth")
    @classmethod
    def _decided_or_embedded(cls, auth: str | None, info: ValidationInfo) -> str | None:
        if auth is None and not _embedded(info):
            raise ValueError(
                "wants jwt (callers send access tokens, see OIDC_ISSUER) or off (whoever reaches the port "
                "may do everything) when the database is a real one"
            )
        return auth

    @field_validator("service_token")
    @classmethod
    def _token_or_embedded(cls, token: SecretStr, info: ValidationInfo) -> SecretStr:
        if token.get_secret_value():
            parse_tokens(token.get_secret_value())
            return token
        if info.data.get("service_token_file", "not usable"):
            return token
        if not _embedded(info):
            raise ValueError("wants a secret, the same in all services, when the database is a real one")
        if info.data.get("auth") == "jwt":  # who knows the default could call in anybody's name
            raise ValueError("wants a secret, the same in all services, when AUTH is jwt")
        return SecretStr(EMBEDDED_TOKEN)

    @field_validator("failpoints")
    @classmethod
    def _check_failpoints(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("environment") == "production":
            raise ValueError("wants nothing when ENVIRONMENT is production")
        failpoints.parse(value)
        return value

    @property
    def sqlalchemy_url(self) -> URL:
        """The database, with the asynchronous driver that belongs to it."""
        if self.database_url is not None:
            return parse_database_url(self.database_url)
        if self.db_host is not None:
            return URL.create(
                "mysql+asyncmy",
                self.db_username,
                self.db_password.get_secret_value(),
                self.db_host,
                self.db_port,
                self.db_name,
            )
        return URL.create("sqlite+aiosqlite", database=str(self.data_dir / f"{self.service}.db"))

    @property
    def embedded(self) -> bool:
        """Whether the database is an SQLite file."""
        return _is_sqlite(self.sqlalchemy_url)

    @property
    def migrates_at_start(self) -> bool:
        """Whether the service applies its migrations when it starts."""
        return self.embedded if self.synchronize is None else self.synchronize


def parse_database_url(value: str) -> URL:
    """Take `mysql://`, `mariadb://` or `sqlite://` and name the driver we use for it.

    Raises:
        ValueError: it is not one of these.

    """
    try:
        url = make_url(value)
        backend = url.get_backend_name()
    except ArgumentError:
        raise ValueError(_WANTED_DATABASE) from None
    if backend in ("mysql", "mariadb"):
        return url.set(drivername="mysql+asyncmy", query={})
    if backend == "sqlite" and url.database:
        return url.set(drivername="sqlite+aiosqlite", query={})
    raise ValueError(_WANTED_DATABASE)


S = TypeVar("S", bound=Settings)


def load(settings_class: type[S]) -> S:
    """Read the environment, or end the process with the list of what is wrong in it."""
    try:
        return settings_class()
    except ValidationError as error:
        print(explain(settings_class, error), file=sys.stderr)  # noqa: T201 - before logging is set up
        raise SystemExit(EX_CONFIG) from None


def explain(settings_class: type[Settings], error: ValidationError) -> str:
    """The block an operator reads: every bad variable, what it got, what it wants."""
    lines = [
        f"{settings_class.service} cannot start: {error.error_count()} bad setting(s) in the environment"
    ]
    for item in error.errors():
        wants = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            lines.append(f"  {wants}")
            continue
        name = str(item["loc"][0])
        hidden = item["type"] == "missing" or item["input"] is None or _is_secret(settings_class, name)
        got = "" if hidden else f"got {item['input']!r}, "
        lines.append(f"  {name.upper()}: {got}{wants[0].lower()}{wants[1:]}")
    return "\n".join(lines)


def _is_secret(settings_class: type[Settings], name: str) -> bool:
    field = settings_class.model_fields.get(name)
    return name == "database_url" or (field is not None and field.annotation is SecretStr)
