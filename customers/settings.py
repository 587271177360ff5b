"""What the customers service can be told."""

from typing import ClassVar

from pydantic import Field

from chassis import settings
from chassis.settings import Port


class Settings(settings.Settings):
    """The settings of every service, on the ports of this one."""

    service: ClassVar[str] = "customers"

    port: Port = Field(3001, description="public port; 0 takes a free one")
    admin_port: Port = Field(9001, description="port of `/livez`, `/readyz`, `/startupz` and `/metrics`")
