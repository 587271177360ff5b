"""Where the orchestrator can be told to fail, in the order in which a saga passes the places.

    request_parsed
    saga.committed
    validate_customer.before    .unread    .recorded
    create_order.before         .unread    .recorded
    confirm_order.before        .unread    .recorded
    cancel_order.before         .unread    .recorded      (the compensation)
    saga.ended                  inside the last transaction
    saga.answered
    sweeper.leased

What becomes of a step is written in one transaction, and with the last step the answer, too. So some of
these places are one state of the database: `saga.committed` and `validate_customer.before`, `X.recorded`
and the `Y.before` of the next step; at `saga.ended` everything since the last `.unread` is rolled back;
at `confirm_order.recorded` and `saga.answered` the answer is stored. They differ in what runs beside.
"""

from chassis.failpoints import Failpoint
from orchestrator.models import Step

REQUEST_PARSED = Failpoint("request_parsed", "The request is valid; nothing is written.")
SAGA_COMMITTED = Failpoint("saga.committed", "The saga and its key are committed; no step is taken.")
BEFORE = {step: Failpoint(f"{step}.before", f"The call for {step} is about to be made.") for step in Step}
UNREAD = {
    step: Failpoint(f"{step}.unread", f"The peer has committed {step}; its answer was not made use of.")
    for step in Step
}
RECORDED = {
    step: Failpoint(f"{step}.recorded", f"What became of {step} is committed; nothing was done since.")
    for step in Step
}
SAGA_ENDED = Failpoint("saga.ended", "The end is written, its answer is not stored, nothing is committed.")
SAGA_ANSWERED = Failpoint("saga.answered", "The answer is stored and not sent.")
SWEEPER_LEASED = Failpoint("sweeper.leased", "The sweeper has leased sagas and takes no step yet.")
