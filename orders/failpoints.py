"""Where orders can be told to fail: between COMMIT and the response."""

from chassis.failpoints import Failpoint

COMMITTED = {
    outcome: Failpoint(f"order_{outcome}.unanswered", f"An order is {outcome}, nobody was told.")
    for outcome in ("created", "confirmed", "canceled")
}
"""By what became of the order. Refusals and replays pass them, too."""
