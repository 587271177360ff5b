"""`python -m customers`."""

from chassis.cli import build_cli
from customers.app import DESCRIPTION, create_app
from customers.settings import Settings

cli = build_cli(Settings, create_app, DESCRIPTION)

if __name__ == "__main__":
    cli()
