"""An idempotency key and its effect are one transaction.

    keys     the key of a request: its sources, its scope, the fingerprint of the request
    table    the keys of a service in its database: find, claim, keep, purge
    flights  twins in one process share one run of the work
    run      do the work of a request once for its key

The first request with a key inserts it, does its work, keeps the answer beside the key and commits
all three at once; nothing is half done after a crash. The key is inserted before anything is locked:
reading it with FOR UPDATE first would deadlock on gap locks.

A twin that comes meanwhile waits for the same answer: in the process of the first one it attaches to
the work that runs, in another process one connection waits on the UNIQUE key of the database.

A business refusal (404, 409) is kept like a success. Anything else that goes wrong rolls back and
leaves the key free.

The rules follow the IETF draft "The Idempotency-Key HTTP Header Field" and Stripe's practice.
"""

from chassis.idempotency.flights import in_progress
from chassis.idempotency.keys import HEADERS, KEY, PATTERN, Key, Keyed, key_of
from chassis.idempotency.run import once, stop_flights
from chassis.idempotency.table import KEYS, PROBLEMS, Kept, KeyHeld, KeyRow, Keys, KeyTaken, Outcome

__all__ = [
    "HEADERS",
    "KEY",
    "KEYS",
    "PATTERN",
    "PROBLEMS",
    "Kept",
    "Key",
    "KeyHeld",
    "KeyRow",
    "KeyTaken",
    "Keyed",
    "Keys",
    "Outcome",
    "in_progress",
    "key_of",
    "once",
    "stop_flights",
]
