"""The saga: its row, its states and the rules of its steps.

RUNNING ──────────────► SUCCEEDED
   │  └─ before create ► FAILED
   └─ after create ────► COMPENSATING ──► COMPENSATED
RUNNING, COMPENSATING ─► NEEDS_ATTENTION ─► (retry) RUNNING, COMPENSATING
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis import dialects, idempotency
from chassis.auth.principal import MAX_LENGTH


class Base(DeclarativeBase):
    """The tables of the orchestrator."""


class Status(StrEnum):
    """Where a saga stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"


UNFINISHED = (Status.RUNNING, Status.COMPENSATING)


class Step(StrEnum):
    """What a saga does, in order; cancel_order is the compensation."""

    VALIDATE_CUSTOMER = "validate_customer"
    CREATE_ORDER = "create_order"
    CONFIRM_ORDER = "confirm_order"
    CANCEL_ORDER = "cancel_order"


NEXT: dict[Step, tuple[Status, Step | None]] = {
    Step.VALIDATE_CUSTOMER: (Status.RUNNING, Step.CREATE_ORDER),
    Step.CREATE_ORDER: (Status.RUNNING, Step.CONFIRM_ORDER),
    Step.CONFIRM_ORDER: (Status.SUCCEEDED, None),
    Step.CANCEL_ORDER: (Status.COMPENSATED, None),
}
"""Where a saga stands once a step is done."""

REFUSED: dict[Step, tuple[Status, Step | None]] = {
    Step.VALIDATE_CUSTOMER: (Status.FAILED, None),
    Step.CREATE_ORDER: (Status.FAILED, None),
    Step.CONFIRM_ORDER: (Status.COMPENSATING, Step.CANCEL_ORDER),
    Step.CANCEL_ORDER: (Status.NEEDS_ATTENTION, Step.CANCEL_ORDER),
}
"""Where a saga stands once a step is refused for good."""


class Saga(Base):
    """One run of the main job.

    `lease_token` counts its owners: who has another token than the row's may write nothing. The
    lease runs until `lease_until`; from `resume_at` on the sweeper may take the saga. Whoever drives it
    acts in the name of its `principal`.
    """

    __tablename__ = "sagas"
    __table_args__ = (
        Index("ix_sagas_created", "created_at", "id"),
        Index("ix_sagas_status", "status", "created_at", "id"),
        Index("ix_sagas_resume", "status", "resume_at"),
        Index("ix_sagas_correlation", "correlation_id", "created_at", "id"),
        Index("ix_sagas_traceparent", "traceparent"),
    )

    id: Mapped[str] = mapped_column(dialects.exact_text(32), primary_key=True)
    status: Mapped[Status] = mapped_column(String(16))
    step: Mapped[Step | None] = mapped_column(String(32))
    request: Mapped[dict[str, Any]] = mapped_column(dialects.Json())
    customer: Mapped[dict[str, Any] | None] = mapped_column(dialects.Json())
    order: Mapped[dict[str, Any] | None] = mapped_column("order_snapshot", dialects.Json())
    refusal: Mapped[dict[str, Any] | None] = mapped_column(dialects.Json())
    steps: Mapped[list[dict[str, Any]]] = mapped_column(dialects.Json())
    attention: Mapped[str | None] = mapped_column(dialects.free_text(200))
    attempts: Mapped[int] = mapped_column(Integer)
    correlation_id: Mapped[str] = mapped_column(dialects.exact_text(128))
    traceparent: Mapped[str] = mapped_column(dialects.exact_text(55))
    principal: Mapped[str | None] = mapped_column(dialects.exact_text(MAX_LENGTH))
    key_scope: Mapped[bytes] = mapped_column(dialects.exact_bytes(160))
    key_value: Mapped[bytes] = mapped_column(dialects.exact_bytes(255))
    lease_token: Mapped[int] = mapped_column(BigInteger)
    lease_until: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    resume_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    created_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    updated_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    finished_at: Mapped[datetime | None] = mapped_column(dialects.UtcDateTime())

    @property
    def is_over(self) -> bool:
        """Whether the saga has its answer."""
        return self.status in (Status.SUCCEEDED, Status.FAILED, Status.COMPENSATED)

    @property
    def is_paused(self) -> bool:
        """Whether its last owner gave the lease back, to be tried again later."""
        return self.lease_until < self.resume_at

    @property
    def order_id(self) -> int | None:
        """The order, once there is one."""
        return self.order["id"] if self.order else None

    @property
    def trace_id(self) -> str:
        """The trace that the saga was started in; empty if there was none."""
        return self.traceparent.split("-")[1] if self.traceparent else ""

    def key(self, step: Step) -> str:
        """The idempotency key of a step: the same whoever takes it, however often.

        A step that was refused and is retried by an operator is another request: orders keeps its
        refusal of the first one.
        """
        refusals = sum(entry["step"] == step and entry["outcome"] == "refused" for entry in self.steps)
        return f"{self.id}:{step}:{refusals + 1}" if refusals else f"{self.id}:{step}"

    def done(self, snapshot: dict[str, Any]) -> None:
        """The current step is done and brought a customer or an order."""
        if self.step is None:
            return
        if self.step == Step.VALIDATE_CUSTOMER:
            self.customer = snapshot
        else:
            self.order = snapshot
        self.status, self.step = NEXT[Step(self.step)]

    def refused(self, refusal: dict[str, Any]) -> None:
        """The current step is refused for good: undo what was done, or end."""
        if self.step is None:
            return
        if self.step == Step.CANCEL_ORDER:
            self.attention = f"The compensation was refused: {refusal['code']}."
        else:
            self.refusal = {**refusal, "step": self.step}
        self.status, self.step = REFUSED[Step(self.step)]

    def give_up(self, reason: str) -> None:
        """Nobody but an operator can help."""
        self.status, self.attention = Status.NEEDS_ATTENTION, reason

    def retry(self) -> None:
        """Take up the step that could not be finished, with all its attempts before it."""
        self.status = Status.COMPENSATING if self.step == Step.CANCEL_ORDER else Status.RUNNING
        self.attention, self.attempts = None, 0

    def record(
        self, outcome: str, attempts: int, started_at: datetime, finished_at: datetime, code: str | None
    ) -> None:
        """Remember what became of the current step; repeated failures of a step share one entry."""
        entry = {
            "step": self.step,
            "outcome": outcome,
            "attempts": attempts,
            "started_at": started_at.isoformat(),
            "finished_at": finished_at.isoformat(),
            "code": code,
        }
        before = self.steps[:]
        if before and before[-1]["step"] == self.step and before[-1]["outcome"] == "unavailable":
            last = before.pop()
            entry["attempts"] += last["attempts"]
            entry["started_at"] = last["started_at"]
        self.steps = [*before, entry]


class IdempotencyKey(idempotency.KeyRow, Base):
    """The idempotency keys of this service; `resource` is the saga that a key started."""

    __tablename__ = "orchestrator_idempotency_keys"
