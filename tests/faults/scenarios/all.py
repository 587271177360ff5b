"""Every case that there is."""

from tests.faults.campaign import Case
from tests.faults.scenarios import failpoints

CASES: tuple[Case, ...] = (*failpoints.CASES,)
