"""What the orchestrator can be told."""

from typing import ClassVar, Self

from aiohttp import web
from pydantic import Field, model_validator

from chassis import settings
from chassis.settings import BaseUrl, Port, Seconds


class Settings(settings.Settings):
    """The settings of every service, and the patience of sagas."""

    service: ClassVar[str] = "orchestrator"

    port: Port = Field(3010, description="public port; 0 takes a free one")
    admin_port: Port = Field(9010, description="port of `/livez`, `/readyz`, `/startupz` and `/metrics`")
    customers_api_base: BaseUrl = Field(
        "http://localhost:3001", description="address of the customers service"
    )
    orders_api_base: BaseUrl = Field("http://localhost:3002", description="address of the orders service")
    peer_timeout: Seconds = Field(6, description="seconds one attempt to call a peer may take")
    peer_deadline: Seconds = Field(10, description="seconds all attempts of one step may take together")
    answer_timeout: Seconds = Field(15, description="seconds a client waits for its saga before it gets 503")
    saga_lease: Seconds = Field(
        30, description="seconds a replica may be silent before another takes its saga over"
    )
    saga_attempts: int = Field(
        2880,
        ge=1,
        le=100_000,
        description="times the sweeper tries a saga before it needs attention; about a day by default",
    )
    saga_days: int = Field(90, ge=1, le=3650, description="days a saga is kept after its end")
    sweep_every: Seconds = Field(2, description="seconds between two looks for sagas to take over")

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.saga_lease <= self.peer_deadline + self.peer_timeout:
            raise ValueError(
                "SAGA_LEASE: wants more than PEER_DEADLINE + PEER_TIMEOUT, or steps outlive their lease"
            )
        return self

    @model_validator(mode="after")
    def _check_days(self) -> Self:
        if self.saga_days < self.idempotency_days:
            raise ValueError(
                "SAGA_DAYS: wants at least IDEMPOTENCY_DAYS, or replays name sagas that are gone"
            )
        return self


SETTINGS = web.AppKey("orchestrator_settings", Settings)
