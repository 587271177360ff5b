"""Every case that there is."""

from tests.faults.campaign import Case
from tests.faults.scenarios import failpoints, versions, zombie

CASES: tuple[Case, ...] = (*failpoints.CASES, *zombie.CASES, *versions.CASES)
