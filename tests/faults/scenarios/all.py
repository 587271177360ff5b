"""Every case that there is."""

from tests.faults.campaign import Case
from tests.faults.scenarios import database, failpoints, network, rolling, versions, zombie

CASES: tuple[Case, ...] = (
    *failpoints.CASES,
    *zombie.CASES,
    *versions.CASES,
    *database.CASES,
    *network.CASES,
    *rolling.CASES,
)
