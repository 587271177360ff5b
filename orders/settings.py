"""What the orders service can be told."""

from typing import ClassVar

from aiohttp import web
from pydantic import Field

from chassis import settings
from chassis.settings import BaseUrl, Port, Seconds


class Settings(settings.Settings):
    """The settings of every service, and the rules that a business may want otherwise."""

    service: ClassVar[str] = "orders"

    port: Port = Field(3002, description="public port; 0 takes a free one")
    admin_port: Port = Field(9002, description="port of `/livez`, `/readyz`, `/startupz` and `/metrics`")
    customers_api_base: BaseUrl = Field(
        "http://localhost:3001", description="address of the customers service"
    )
    peer_timeout: Seconds = Field(2, description="seconds one attempt to call a peer may take")
    peer_deadline: Seconds = Field(4, description="seconds all attempts of one call may take together")
    reservation_ttl: float = Field(
        86_400, gt=0, le=31_536_000, description="seconds an unconfirmed order keeps its stock"
    )
    cancel_window: float = Field(
        600, ge=0, le=31_536_000, description="seconds a confirmed order can be canceled"
    )
    expire_every: Seconds = Field(60, description="seconds between two rounds of tidying up expired orders")


SETTINGS = web.AppKey("orders_settings", Settings)
