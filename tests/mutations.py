"""Take each guard away in turn and see which tests notice.

    python -m tests.mutations             all of them
    python -m tests.mutations lock merge  those whose name has one of these words

Each mutation is applied to a copy of the tree, never to the tree itself, and the tests that ought to
go red are run there. Prints a table; exits 1 if there is a mutation that no test failed for. It takes a
while, so `make test` leaves it out.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.mariadb import private_server

ROOT = Path(__file__).parent.parent
COPIED = ("chassis", "customers", "orders", "orchestrator", "dev", "tests", "pyproject.toml")
TIMEOUT_SECONDS = 600
BASELINE_SECONDS = 3600
SHOWN = 3
say = partial(print, flush=True)

CHASSIS_KEYS = "tests/chassis/test_idempotency.py"
AUTH = "tests/chassis/auth"
CONCURRENCY = "tests/orders/test_concurrency.py"
CONTRACT = "tests/idempotency/test_contract.py"
HANDLERS = "tests/orders/test_handlers.py"
IDEMPOTENCY = "tests/orders/test_idempotency.py"
PREDECESSOR = "tests/e2e/test_predecessor.py"
STOCK = "tests/orders/test_stock.py"
DRIVER = "tests/orchestrator/test_driver.py"
SAGAS = "tests/orchestrator/test_commands.py"
SWEEPER = "tests/orchestrator/test_sweeper.py"
CONNECTIONS = "tests/chassis/test_connections.py"
ROLLOUT = "tests/e2e/test_rollout.py"
MIGRATIONS = "tests/chassis/test_migrations.py"
PROBES = "tests/e2e/test_probes.py"
HOSTILE = "tests/e2e/test_hostile.py"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace a text that stands in the file exactly once."""

    path: str
    old: str
    new: str

    def apply(self, tree: Path) -> None:
        """Change the file in this tree."""
        source = (tree / self.path).read_text()
        if (found := source.count(self.old)) != 1:
            raise SystemExit(f"{self.path} has {found} times, not once: {self.old!r}")
        (tree / self.path).write_text(source.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guard that is taken away, and the tests that are run without it: files, and a pytest -k."""

    name: str
    edits: tuple[Edit, ...]
    files: tuple[str, ...]
    only: str = ""

    def arguments(self) -> list[str]:
        """What to tell pytest."""
        return [*self.files, *(["-k", self.only] if self.only else [])]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The tests that failed, and those whose fixtures did; as a text, what the table says of it.

    Only a test that fails has caught anything: a fixture may break, and tests may hang, for any reason.
    """

    failed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    timed_out_after: int | None = None
    """Seconds."""

    @property
    def is_green(self) -> bool:
        return self == Outcome()

    def __str__(self) -> str:
        if self.failed:
            return _listed(self.failed)
        if self.timed_out_after is not None:
            return f"**timed out** after {self.timed_out_after} s"
        return f"**error** before or after {_listed(self.errors)}" if self.errors else "**SURVIVED**"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:SHOWN]) + more


_CONNECTIONS = "chassis/connections.py"
_MIGRATION = "orders/migrations/versions/0001_orders.py"
_ORDER_LOCK = """    .order_by(Order.id)
    .with_for_update()
"""
_PRODUCT_LOCK = """    .order_by(Product.id)
    .with_for_update()
"""
_LOCK_ORDERS = 'rows = (await session.execute(_LOCK, {"ids": sorted(order_ids)})).all()'
_LOCK_PRODUCTS = 'rows = (await session.execute(_LOCK, {"ids": sorted(product_ids)})).all()'
_JWT_OPTIONS = '"enforce_minimum_key_length": True'
_ASKED_FIRST = """        name = (
            await access.caller("""
_LOOKED_UP = """await request.app[idempotency.KEYS].database.check()
"""

MUTATIONS = (
    Mutation(
        "no row lock on orders",
        (Edit("orders/rows.py", _ORDER_LOCK, "    .order_by(Order.id)\n"),),
        (STOCK, CONCURRENCY),
        "under_way or confirmed_against",
    ),
    Mutation(
        "no row lock on products",
        (Edit("orders/stock.py", _PRODUCT_LOCK, "    .order_by(Product.id)\n"),),
        (STOCK, CONCURRENCY),
        "under_way or 200_orders",
    ),
    Mutation(
        "no row locks and no guards in the UPDATEs",
        (
            Edit("orders/rows.py", _ORDER_LOCK, "    .order_by(Order.id)\n"),
            Edit("orders/stock.py", _PRODUCT_LOCK, "    .order_by(Product.id)\n"),
            Edit("orders/stock.py", "        .where(reserved >= 0, reserved <= stock)\n", ""),
            Edit("orders/rows.py", "        .where(orders.version == given.version)\n", ""),
        ),
        (CONCURRENCY, PREDECESSOR),
        "200_orders or confirmed_against or sell_10 or no_order_is_confirmed",
    ),
    Mutation(
        "products locked one by one, in the order of the request",
        (
            Edit(
                "orders/stock.py",
                _LOCK_PRODUCTS,
                'rows = [row for one in product_ids for row in await session.execute(_LOCK, {"ids": [one]})]',
            ),
            Edit(
                "orders/commands.py",
                "wanted = {product_id for request in requests for product_id in request.quantities}",
                "wanted = [product_id for request in requests for product_id in request.quantities]",
            ),
        ),
        (STOCK, CONCURRENCY),
        "in_id_order or crossed",
    ),
    Mutation(
        "orders locked one by one, in the order of the list",
        (
            Edit(
                "orders/rows.py",
                _LOCK_ORDERS,
                'rows = [row for one in order_ids for row in await session.execute(_LOCK, {"ids": [one]})]',
            ),
        ),
        (STOCK,),
        "in_id_order",
    ),
    Mutation(
        "UPDATEs that scan a small table",
        (Edit("chassis/dialects.py", " FORCE INDEX (PRIMARY), ", ", "),),
        (STOCK, CONCURRENCY),
        "none_of_its_business or whatever_happens",
    ),
    Mutation(
        "locks that scan the table for a thousand ids",
        (Edit("chassis/dialects.py", "in_predicate_conversion_threshold = 0, ", ""),),
        (STOCK,),
        "thousand",
    ),
    Mutation(
        "no guard in the UPDATE of products",
        (Edit("orders/stock.py", "        .where(reserved >= 0, reserved <= stock)\n", ""),),
        (STOCK,),
    ),
    Mutation(
        "no guard in the UPDATE of orders",
        (Edit("orders/rows.py", "        .where(orders.version == given.version)\n", ""),),
        (STOCK,),
    ),
    Mutation(
        "no guard for If-Match",
        (
            Edit(
                "orders/product_commands.py",
                "statement = statement.where(Product.version.in_(versions))",
                "statement = statement",
            ),
        ),
        ("tests/orders/test_product_handlers.py",),
        "update",
    ),
    Mutation(
        "no CHECK in the database",
        (
            Edit(_MIGRATION, '        sa.CheckConstraint("stock >= 0", name="ck_products_stock"),\n', ""),
            Edit(
                _MIGRATION,
                '        sa.CheckConstraint("reserved BETWEEN 0 AND stock", name="ck_products_reserved"),\n',
                "",
            ),
        ),
        (STOCK,),
        "database_itself",
    ),
    Mutation(
        "REPEATABLE READ instead of READ COMMITTED",
        (
            Edit(
                "chassis/dialects.py", 'isolation_level="READ COMMITTED"', 'isolation_level="REPEATABLE READ"'
            ),
        ),
        ("tests/orders/test_expiry.py",),
        "hold_up",
    ),
    Mutation(
        "SQLite's writers begin without the lock",
        (
            Edit(
                "chassis/dialects.py",
                'begin = "BEGIN" if name in ("readers", "probes") else "BEGIN IMMEDIATE"',
                'begin = "BEGIN"',
            ),
        ),
        (STOCK,),
        "sqlite",
    ),
    # --- sagas and their leases ------------------------------------------------------------------
    Mutation(
        "the former owner of a saga may still write",
        (
            Edit(
                "orchestrator/commands.py",
                '_SAGAS.c.lease_token == bindparam("of_token")',
                '_SAGAS.c.lease_token >= bindparam("of_token")',
            ),
        ),
        (SAGAS, DRIVER),
        "lost",
    ),
    Mutation(
        "a saga that is taken over keeps its token",
        (
            Edit(
                "orchestrator/commands.py",
                "lease_token=Saga.lease_token + 1,",
                "lease_token=Saga.lease_token,",
            ),
            Edit("orchestrator/commands.py", "        saga.lease_token += 1\n", ""),
        ),
        (SAGAS, DRIVER),
        "lost",
    ),
    Mutation(
        "a saga is taken over while its owner works on it",
        (
            Edit(
                "orchestrator/commands.py",
                "Saga.id == saga_id, Saga.status.in_(UNFINISHED), Saga.lease_until <= dialects.now()",
                "Saga.id == saga_id, Saga.status.in_(UNFINISHED)",
            ),
        ),
        (SAGAS,),
        "worked_on or taken_over_once",
    ),
    Mutation(
        "the sweeper does not look at leases",
        (
            Edit(
                "orchestrator/commands.py",
                ", or_(Saga.resume_at <= dialects.now(), Saga.resume_at > too_late))",
                ")",
            ),
        ),
        (SAGAS, SWEEPER),
        "worked_on or leaves_alone",
    ),
    Mutation(
        "sweepers wait for one another",
        (Edit("orchestrator/commands.py", ".with_for_update(skip_locked=True)", ".with_for_update()"),),
        (SAGAS,),
        "does_not_wait",
    ),
    Mutation(
        "writing a saga does not renew its lease",
        (Edit("orchestrator/commands.py", "lease=lease, pause=lease)", "lease=0, pause=0)"),),
        (SAGAS,),
        "renews",
    ),
    Mutation(
        "a refused confirmation is not compensated",
        (
            Edit(
                "orchestrator/models.py",
                "Step.CONFIRM_ORDER: (Status.COMPENSATING, Step.CANCEL_ORDER),",
                "Step.CONFIRM_ORDER: (Status.FAILED, None),",
            ),
        ),
        (DRIVER, "tests/orchestrator/test_models.py"),
        "compensat or canceled_before",
    ),
    Mutation(
        "every attempt of a step has a key of its own",
        (
            Edit(
                "orchestrator/models.py",
                'return f"{self.id}:{step}:{refusals + 1}" if refusals else f"{self.id}:{step}"',
                "return f\"{self.id}:{step}:{refusals}:{__import__('time').time_ns()}\"",
            ),
        ),
        (DRIVER, "tests/orchestrator/test_models.py"),
        "once or one_key",
    ),
    Mutation(
        "a step that was refused is retried with the key of its refusal",
        (
            Edit(
                "orchestrator/models.py",
                'return f"{self.id}:{step}:{refusals + 1}" if refusals else f"{self.id}:{step}"',
                'return f"{self.id}:{step}"',
            ),
        ),
        (DRIVER, "tests/orchestrator/test_models.py"),
        "retried",
    ),
    Mutation(
        "the end of a saga keeps no answer",
        (
            Edit(
                "orchestrator/commands.py",
                "    await keys.keep(session, saga.key_scope, saga.key_value, answer)\n",
                "",
            ),
        ),
        (SAGAS, DRIVER),
        "answer",
    ),
    Mutation(
        "a key starts a saga as often as it is sent",
        (Edit("orchestrator/commands.py", "    await keys.claim(session, [key], saga.id)\n", ""),),
        (SAGAS, "tests/orchestrator/test_desk.py"),
        "key",
    ),
    Mutation(
        "an order that is confirmed already is canceled for it",
        (Edit("orchestrator/peers.py", "step == Step.CONFIRM_ORDER and _is_confirmed(answer)", "False"),),
        (DRIVER,),
        "confirmed_already",
    ),
    Mutation(
        "a replica that stops keeps its leases",
        (
            Edit(
                "orchestrator/driver.py",
                "            await self._give_back(self._interrupted)\n",
                "            pass\n",
            ),
        ),
        (DRIVER, ROLLOUT),
        "gives_the_sagas_back or another_replica",
    ),
    Mutation(
        "drain: a service that is told to end stops listening at once",
        (Edit("chassis/process.py", "        await asyncio.sleep(settings.drain_seconds)\n", ""),),
        (ROLLOUT,),
        "loses_no_request",
    ),
    Mutation(
        "drain: connections are kept open",
        (Edit("chassis/middlewares.py", "if request.app[LIFECYCLE].draining:", "if False:"),),
        (ROLLOUT,),
        "loses_no_request",
    ),
    Mutation(
        "drain: who waits for a saga is cut off",
        (Edit("orchestrator/app.py", "    app.on_shutdown.append(interrupt_in_time)\n", ""),),
        (ROLLOUT,),
        "another_replica",
    ),
    Mutation(
        "drain: a handler that never ends is waited for twice",
        (Edit("chassis/process.py", "settings.shutdown_timeout / 2", "settings.shutdown_timeout"),),
        (ROLLOUT,),
        "another_replica",
    ),
    Mutation(
        "drain: a transaction that begins again and again is waited for",
        (
            Edit(
                "chassis/database.py",
                "asyncio.wait(self._running, timeout=self._timeout)",
                "asyncio.wait(self._running)",
            ),
        ),
        ("tests/chassis/test_database.py",),
        "begins_again",
    ),
    Mutation(
        "drain: a replica that ends takes sagas over",
        (Edit("orchestrator/app.py", "if not app[LIFECYCLE].draining:", "if True:"),),
        (SWEEPER,),
        "drains",
    ),
    Mutation(
        "a transaction dies with the request that began it",
        (Edit("chassis/database.py", "return await asyncio.shield(task)", "return await task"),),
        ("tests/chassis/test_database.py",),
        "goes_away",
    ),
    Mutation(
        "a transaction that stands still keeps its locks",
        (Edit("chassis/dialects.py", "{ceil(idle_timeout)}", "0"),),
        ("tests/chassis/test_database.py",),
        "stands_still",
    ),
    Mutation(
        "production may fail on purpose",
        (
            Edit(
                "chassis/settings.py",
                'if value and info.data.get("environment") == "production":',
                "if False:",
            ),
        ),
        ("tests/chassis/test_failpoints.py",),
        "production",
    ),
    Mutation(
        "keys are not UNIQUE",
        (
            Edit(
                _MIGRATION,
                'sa.Column("scope", dialects.exact_bytes(160), primary_key=True)',
                'sa.Column("scope", dialects.exact_bytes(160))',
            ),
            Edit(
                _MIGRATION,
                'sa.Column("key", dialects.exact_bytes(255), primary_key=True)',
                'sa.Column("key", dialects.exact_bytes(255))',
            ),
        ),
        (CONTRACT,),
        "at_another_replica",
    ),
    Mutation(
        "a key that is there already is claimed again",
        (
            Edit(
                "chassis/idempotency/table.py",
                "self._claim = insert(rows).values(created_at=dialects.now())",
                'self._claim = insert(rows).prefix_with("IGNORE", dialect="mysql")'
                '.prefix_with("OR IGNORE", dialect="sqlite").values(created_at=dialects.now())',
            ),
        ),
        (CONTRACT,),
        "at_another_replica",
    ),
    Mutation(
        "keys are compared without regard to case",
        (
            Edit(
                _MIGRATION,
                'sa.Column("key", dialects.exact_bytes(255), primary_key=True)',
                'sa.Column("key", dialects.free_text(255), primary_key=True)',
            ),
        ),
        (CONTRACT,),
        "as_bytes",
    ),
    Mutation(
        "a key stands for any request",
        (Edit("chassis/idempotency/table.py", "if row.fingerprint != key.fingerprint:", "if False:"),),
        (CONTRACT, PREDECESSOR),
        "another_request or another_order",
    ),
    Mutation(
        "twins do not attach",
        (Edit("chassis/idempotency/flights.py", "(flight := self._flights.get(key))", "(flight := None)"),),
        (CONTRACT,),
        "attach",
    ),
    Mutation(
        "the work is not shielded from its client",
        (
            Edit(
                "chassis/idempotency/flights.py",
                "await asyncio.wait({self.task})",
                "await self.task",
            ),
        ),
        (CHASSIS_KEYS,),
        "goes_away",
    ),
    Mutation(
        "another request is not noticed while the first is in flight",
        (
            Edit(
                "chassis/idempotency/flights.py",
                "return self._first.get((key.scope, key.value), key) != key",
                "return False",
            ),
        ),
        (CONTRACT,),
        "also_while and confirm",
    ),
    Mutation(
        "a twin in another process gives up at the lock timeout",
        (Edit("chassis/idempotency/run.py", "if monotonic() > deadline:", "if True:"),),
        (CHASSIS_KEYS,),
        "outwaits",
    ),
    Mutation(
        "twins lock the saga that they wait for",
        (Edit("orchestrator/driver.py", "(state.is_idle and await self", "(await self"),),
        ("tests/orchestrator/test_desk.py",),
        "answer_of_another_replica",
    ),
    Mutation(
        "a refusal by the business is not kept",
        (
            Edit(
                "chassis/idempotency/run.py",
                "if isinstance(outcome, Problem) and not outcome.final:",
                "if isinstance(outcome, Problem):",
            ),
        ),
        (CONTRACT,),
        "final",
    ),
    Mutation(
        "a replay asks customers again",
        (
            Edit(
                "chassis/idempotency/run.py",
                "    if looked and (kept := await keys.find(key)) is not None:\n"
                "        return _given_before(keys, kept)\n",
                "",
            ),
        ),
        (IDEMPOTENCY,),
        "ask_customers",
    ),
    Mutation(
        "the same product twice is not merged",
        (
            Edit(
                "orders/schemas.py",
                "Field(min_length=1, max_length=MAX_ITEMS), AfterValidator(_merged)]",
                "Field(min_length=1, max_length=MAX_ITEMS)]",
            ),
        ),
        ("tests/orders/test_schemas.py", HANDLERS, PREDECESSOR),
        "line or merged or twice",
    ),
    Mutation(
        "purchase order numbers are not UNIQUE",
        (
            Edit(
                _MIGRATION,
                '        sa.UniqueConstraint("customer_id", "purchase_order_number", '
                'name="uq_orders_purchase_order"),\n',
                "",
            ),
        ),
        (STOCK, HANDLERS),
        "purchase_order",
    ),
    Mutation(
        "an expired order can be confirmed",
        (Edit("orders/models.py", "        if self.is_expired(now):\n", "        if False:\n"),),
        ("tests/orders/test_models.py", "tests/orders/test_expiry.py"),
        "expired_order_cannot or ends_a_reservation",
    ),
    Mutation(
        "stock of expired orders waits for the job",
        (Edit("orders/commands.py", "    if short:\n", "    if False:\n"),),
        ("tests/orders/test_expiry.py",),
        "at_once or get_it_once",
    ),
    Mutation(
        "the job waits for orders that others work on",
        (Edit("orders/commands.py", "with_for_update(skip_locked=True)", "with_for_update()"),),
        ("tests/orders/test_expiry.py",),
        "does_not_wait",
    ),
    Mutation(
        "the window to cancel never closes",
        (
            Edit(
                "orders/models.py",
                "if self.confirmed_at is not None and now - self.confirmed_at > window:",
                "if False:",
            ),
        ),
        ("tests/orders/test_models.py", "tests/orders/test_expiry.py"),
        "window",
    ),
    Mutation(
        "sales leave no trace in the ledger",
        (
            Edit(
                "orders/stock.py",
                "            for change in changes\n        ],",
                '            for change in changes\n            if change.kind != "sale"\n        ],',
            ),
        ),
        (HANDLERS,),
        "confirmation",
    ),
    Mutation(
        "a transaction that lost is not begun again",
        (Edit("chassis/database.py", "attempts=self._attempts,", "attempts=1,"),),
        (STOCK, "tests/orders/test_expiry.py"),
        "being_taken or at_once",
    ),
    Mutation(
        "a transaction that holds a connection takes another one",
        (
            Edit(
                "chassis/database.py",
                "            result = await work(session)\n",
                "            result = await work(session)\n            await self.check()\n",
            ),
        ),
        (PREDECESSOR,),
        "hang",
    ),
    Mutation(
        "the server chooses the index of a list",
        (
            Edit(
                "orders/queries.py",
                '    statement = statement.with_hint(Order, f"FORCE INDEX ({_index_for(query)})", "mysql")\n',
                "",
            ),
        ),
        ("tests/orders/test_queries.py",),
        "deep_page",
    ),
    Mutation(
        "auth: only the first service token is accepted",
        (
            Edit(
                "chassis/auth/service_tokens.py",
                "for known in self._known()]",
                "for known in self._known()[:1]]",
            ),
        ),
        (f"{AUTH}/test_service_tokens.py", "tests/e2e/test_rotation.py"),
        "several_tokens or no_order_is_lost",
    ),
    Mutation(
        "auth: token files are not read again",
        (Edit("chassis/auth/files.py", "if seen == self._seen:", 'if hasattr(self, "_value"):'),),
        (f"{AUTH}/test_files.py", f"{AUTH}/test_service_tokens.py"),
    ),
    Mutation(
        "auth: a call whose token was just rotated is not repeated",
        (Edit("chassis/client.py", " and token != self._token():", " and token is None:"),),
        ("tests/chassis/test_client.py",),
        "rotated",
    ),
    Mutation(
        "auth: the audience of a token is not checked",
        (Edit("chassis/auth/bearer.py", _JWT_OPTIONS, f'{_JWT_OPTIONS}, "verify_aud": False'),),
        (f"{AUTH}/test_bearer.py",),
        "not_in_order",
    ),
    Mutation(
        "auth: the issuer of a token is not checked",
        (Edit("chassis/auth/bearer.py", _JWT_OPTIONS, f'{_JWT_OPTIONS}, "verify_iss": False'),),
        (f"{AUTH}/test_bearer.py",),
        "not_in_order",
    ),
    Mutation(
        "auth: a token may be without an end",
        (Edit("chassis/auth/bearer.py", '["exp", "iss", "aud", "sub"]', '["iss", "aud", "sub"]'),),
        (f"{AUTH}/test_bearer.py",),
        "not_in_order",
    ),
    Mutation(
        "auth: an hour of leeway",
        (Edit("chassis/auth/bearer.py", "leeway=self._leeway,", "leeway=3600,"),),
        (f"{AUTH}/test_bearer.py",),
        "not_in_order",
    ),
    Mutation(
        "auth: signatures are not checked",
        (Edit("chassis/auth/bearer.py", _JWT_OPTIONS, f'{_JWT_OPTIONS}, "verify_signature": False'),),
        (f"{AUTH}/test_bearer.py",),
        "not_in_order",
    ),
    Mutation(
        "auth: a token that was found valid stays so for ever",
        (Edit("chassis/auth/bearer.py", "time() >= valid.until or ", ""),),
        (f"{AUTH}/test_bearer.py",),
        "once_it_expired",
    ),
    Mutation(
        "auth: a token that was found valid outlives its key",
        (Edit("chassis/auth/bearer.py", " or not await self._is_current(valid):", ":"),),
        (f"{AUTH}/test_keys.py",),
        "withdrawn",
    ),
    Mutation(
        "auth: weak keys are taken",
        (Edit("chassis/auth/bearer.py", _JWT_OPTIONS, '"enforce_minimum_key_length": False'),),
        (f"{AUTH}/test_bearer.py",),
        "weak_key",
    ),
    Mutation(
        "auth: scopes are not checked",
        (Edit("chassis/auth/access.py", "            if scope not in scopes:\n", "            if False:\n"),),
        (f"{AUTH}/test_access.py", f"{AUTH}/test_bearer.py"),
        "scope or may_not",
    ),
    Mutation(
        "auth: who may call is asked after the body was read",
        (
            Edit(
                "chassis/routes.py",
                _ASKED_FIRST,
                f"        await request.read()\n        {_LOOKED_UP}{_ASKED_FIRST}",
            ),
        ),
        (f"{AUTH}/test_access.py",),
        "before_the_body",
    ),
    Mutation(
        "auth: keys are not of their principals",
        (
            Edit(
                "chassis/idempotency/keys.py",
                "principal.scope_of(principal.current())",
                "principal.ANONYMOUS",
            ),
        ),
        (f"{AUTH}/test_access.py",),
        "two_principals",
    ),
    Mutation(
        "auth: who speaks for others without the service token is taken for nobody",
        (Edit("chassis/auth/access.py", "if principal.HEADER in request.headers:", "if False:"),),
        (f"{AUTH}/test_access.py",),
        "stranger",
    ),
    Mutation(
        "auth: the steps of a saga are taken in nobody's name",
        (Edit("orchestrator/peers.py", "principal.stated(saga.principal)", "principal.stated(None)"),),
        ("tests/orchestrator/test_principal.py",),
        "in_the_name",
    ),
    Mutation(
        "auth: keys are fetched for every token that names another one",
        (Edit("chassis/auth/keys.py", "monotonic() - self._tried_at > PAUSE_SECONDS:", "self._tried_at:"),),
        (f"{AUTH}/test_keys.py",),
        "all_the_time or at_the_start",
    ),
    Mutation(
        "auth: without the provider its keys are forgotten",
        (
            Edit(
                "chassis/auth/keys.py",
                "            self._known = False\n",
                "            self._known = False\n            self._keys = {}\n",
            ),
        ),
        (f"{AUTH}/test_keys.py",),
        "fails_later",
    ),
    Mutation(
        "auth: an operation may be silent about who may call",
        (Edit("chassis/routes.py", ".count(True) != 1:", ".count(True) > 1:"),),
        (f"{AUTH}/test_access.py",),
        "has_to_say",
    ),
    Mutation(
        "auth: the rate limit remembers whoever comes",
        (Edit("chassis/auth/limits.py", "if len(self._clear_at) > MAX_PRINCIPALS:", "if False:"),),
        (f"{AUTH}/test_limits.py",),
        "bounded",
    ),
    Mutation(
        "auth: with access tokens, the service token has a default",
        (Edit("chassis/settings.py", 'if info.data.get("auth") == "jwt":', "if False:"),),
        ("tests/chassis/test_settings.py",),
        "everybody_knows",
    ),
    Mutation(
        "auth: files with a time to come are read again for every request",
        (
            Edit(
                "chassis/auth/files.py",
                "abs(time.time() - status.st_mtime)",
                "(time.time() - status.st_mtime)",
            ),
        ),
        (f"{AUTH}/test_files.py",),
        "read_again",
    ),
    Mutation(
        "auth: strangers who wait for keys take room",
        (
            Edit(
                "chassis/routes.py",
                "        name = (\n",
                "        with access.capacity.entered():\n"
                "            await access.caller(request, self.scope, peers=True)\n"
                "        name = (\n",
            ),
        ),
        (f"{AUTH}/test_keys.py",),
        "takes_no_room",
    ),
    Mutation(
        "auth: room for requests is not given back",
        (Edit("chassis/auth/limits.py", "            self._active -= 1\n", "            pass\n"),),
        (f"{AUTH}/test_limits.py",),
        "given_back",
    ),
    Mutation(
        "auth: a real database needs no decision about callers",
        (Edit("chassis/settings.py", "if auth is None and not _embedded(info):", "if False:"),),
        ("tests/chassis/test_settings.py",),
        "decision",
    ),
    Mutation(
        "leases go by the clock of the service",
        (
            Edit(
                "orchestrator/commands.py",
                "Saga.resume_at <= dialects.now()",
                'Saga.resume_at <= __import__("datetime").datetime.now(__import__("datetime").UTC)',
            ),
        ),
        ("tests/e2e/test_clocks.py",),
        "lease",
    ),
    Mutation(
        "sagas without an end are forgotten with the others",
        (
            Edit(
                "orchestrator/commands.py",
                "where(Saga.created_at < cutoff, Saga.finished_at < cutoff)",
                "where(Saga.created_at < cutoff)",
            ),
        ),
        (SAGAS,),
    ),
    Mutation(
        "a lease from before the clock was set back lasts",
        (
            Edit(
                "orchestrator/commands.py",
                "or_(Saga.resume_at <= dialects.now(), Saga.resume_at > too_late)",
                "or_(Saga.resume_at <= dialects.now())",
            ),
        ),
        ("tests/e2e/test_clocks.py", "tests/orchestrator/test_commands.py"),
        "lease",
    ),
    Mutation(
        "migrations: a database that is silent at the start is waited for",
        (
            Edit(
                "chassis/migrations.py",
                "            async with asyncio.timeout(ANSWER_SECONDS):\n                connection =",
                "            async with asyncio.timeout(None):\n                connection =",
            ),
        ),
        (MIGRATIONS,),
        "falls_silent",
    ),
    Mutation(
        "migrations: a database that is silent about its lock is waited for",
        (
            Edit(
                "chassis/migrations.py",
                "asyncio.timeout(LOCK_SECONDS + ANSWER_SECONDS)",
                "asyncio.timeout(None)",
            ),
        ),
        (MIGRATIONS,),
        "falls_silent",
    ),
    Mutation(
        "migrations: an index that is there is created again",
        (
            Edit(
                "chassis/migrations.py",
                'if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:',
                "if True:",
            ),
        ),
        (MIGRATIONS,),
        "before_any_of_its_statements",
    ),
    Mutation(
        "migrations: replicas do not wait for one another",
        (
            Edit(
                "chassis/dialects.py",
                'text("SELECT GET_LOCK(:name, :wait)")',
                'text("SELECT :name = :name AND :wait = :wait")',
            ),
        ),
        (MIGRATIONS,),
        "two_at_once or does_not_finish",
    ),
    Mutation(
        "migrations: SIGTERM is left to the kernel",
        (Edit("chassis/cli.py", "        signal.signal(signal.SIGTERM, _end)\n", "        pass\n"),),
        (MIGRATIONS,),
        "can_be_ended",
    ),
    Mutation(
        "migrations: a newer schema is taken for an older one",
        (
            Edit(
                "chassis/migrations.py",
                "return revision == head(service) or (",
                "return revision == head(service) or False and (",
            ),
        ),
        (ROLLOUT,),
        "next_release",
    ),
    Mutation(
        "probes: liveness asks the database",
        (
            Edit(
                "chassis/probes.py",
                'return web.json_response({"status": "alive"})',
                "return await readyz(_request)",
            ),
        ),
        (PROBES,),
    ),
    Mutation(
        "probes: the start-up probe asks the database",
        (
            Edit(
                "chassis/probes.py",
                "started = app[LIFECYCLE].started",
                "started = await readiness.reason_against() is None",
            ),
        ),
        (PROBES,),
    ),
    Mutation(
        "probes: readiness waits for a database that is silent",
        (Edit("chassis/probes.py", "asyncio.timeout(CHECK_TIMEOUT_SECONDS)", "asyncio.timeout(None)"),),
        (PROBES,),
    ),
    Mutation(
        "readiness ignores the schema",
        (Edit("chassis/probes.py", "return SchemaOutdated.code if outdated else None", "return None"),),
        ("tests/chassis/test_probes.py",),
        "migrations_are_there",
    ),
    Mutation(
        "readiness takes a connection of the requests",
        (Edit("chassis/probes.py", "[DATABASE].probe() as session", "[DATABASE].read() as session"),),
        ("tests/chassis/test_probes.py",),
        "pool_is_exhausted",
    ),
    Mutation(
        "requests are served while the schema is being migrated",
        (Edit("chassis/database.py", "if self.refusal is not None:", "if False:"),),
        ("tests/chassis/test_schema.py",),
        "migrates or fails",
    ),
    Mutation(
        "a lock of whole tables is waited for without end",
        (
            Edit(
                "chassis/dialects.py",
                """innodb_lock_wait_timeout = {lock_timeout}, "
            f"lock_wait_timeout = {lock_timeout}"
""",
                """innodb_lock_wait_timeout = {lock_timeout}"
""",
            ),
        ),
        ("tests/orders/test_storage.py",),
        "backup",
    ),
    Mutation(
        "a full disk is a bug",
        (Edit("chassis/database.py", "    (dialects.is_full, DatabaseFull),\n", ""),),
        ("tests/orders/test_storage.py",),
        "writes",
    ),
    Mutation(
        "a database that is read-only is a bug",
        (Edit("chassis/database.py", "    (dialects.is_read_only, DatabaseReadOnly),\n", ""),),
        ("tests/orders/test_storage.py",),
        "writes or read_only",
    ),
    Mutation(
        "half a head may take for ever",
        (Edit(_CONNECTIONS, "elif self._head_deadline is None and self.is_waiting:", "elif False:"),),
        (CONNECTIONS,),
        "head",
    ),
    Mutation(
        "half a body may take for ever",
        (Edit("chassis/http.py", "asyncio.timeout(settings.body_timeout)", "asyncio.timeout(3600)"),),
        (HOSTILE,),
        "half_sent_bodies",
    ),
    Mutation(
        "bodies of any size",
        (
            Edit("chassis/app.py", "client_max_size=settings.max_body_bytes", "client_max_size=2**40"),
            Edit("chassis/http.py", "request.content_length > settings.max_body_bytes", "False"),
        ),
        (HOSTILE,),
        "10_mib or million",
    ),
    Mutation(
        "an answer may be taken for ever",
        (
            Edit(
                _CONNECTIONS,
                "self._loop.call_later(self._settings.body_timeout, self.transport.abort)",
                "None",
            ),
        ),
        (CONNECTIONS,),
        "nobody_takes",
    ),
    Mutation(
        "any number of connections",
        (Edit(_CONNECTIONS, "if len(others) > self._settings.max_connections:", "if False:"),),
        (CONNECTIONS, HOSTILE),
        "room or at_work or idle",
    ),
    Mutation(
        "a connection at work makes room for another",
        (Edit(_CONNECTIONS, "isinstance(each, Protocol) and each.is_waiting", "isinstance(each, Protocol)"),),
        (CONNECTIONS,),
        "room or at_work",
    ),
    Mutation(
        "bodies are unpacked",
        (
            Edit("chassis/process.py", "            auto_decompress=False,\n", ""),
            Edit(
                "chassis/http.py",
                'if request.headers.get("Content-Encoding", "identity").lower() != "identity":',
                "if False:",
            ),
        ),
        (HOSTILE,),
        "gzip",
    ),
)


def main(words: list[str]) -> int:
    """Run the mutations whose names have one of the words, or all; return the exit code."""
    chosen = [each for each in MUTATIONS if not words or any(word in each.name for word in words)]
    with TemporaryDirectory(prefix="b2b-mutations-") as folder, private_server(Path(folder)) as server:
        tree = Path(folder) / "tree"
        environment = os.environ | {"TEST_DATABASE_URL": server.url("")}
        files = tuple(dict.fromkeys(file for mutation in chosen for file in mutation.files))
        with copied(tree):
            unchanged = Mutation("nothing changed", (), files)
            if not (before := outcome(tree, unchanged, environment, BASELINE_SECONDS)).is_green:
                raise SystemExit(f"red without any mutation: {before}")
        say("| without the guard | caught by |\n|---|---|")
        survived = 0
        for mutation in chosen:
            with copied(tree):
                for edit in mutation.edits:
                    edit.apply(tree)
                found = outcome(tree, mutation, environment)
            survived += not found.failed
            say(f"| {mutation.name} | {found} |")
    return 1 if survived else 0


@contextmanager
def copied(tree: Path) -> Iterator[None]:
    """A fresh copy of what the tests need."""
    tree.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, tree / name)
    try:
        yield
    finally:
        shutil.rmtree(tree)


def outcome(
    tree: Path, mutation: Mutation, environment: dict[str, str], seconds: int = TIMEOUT_SECONDS
) -> Outcome:
    """Run the mutation's tests in the tree."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--show-capture=no", "-p", "no:cacheprovider"]
    try:
        result = subprocess.run(  # noqa: S603 - our own command
            [*command, *mutation.arguments()],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(timed_out_after=seconds)
    if result.returncode not in (0, 1):
        raise SystemExit(f"pytest did not run: {mutation.name}\n{result.stdout}{result.stderr}")

    def tests(said: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(re.findall(rf"^{said} \S+::(\w+)", result.stdout, re.MULTILINE)))

    return Outcome(tests("FAILED"), tests("ERROR"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
