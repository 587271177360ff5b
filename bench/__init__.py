"""How fast the services are, beside the same statements sent by the driver alone, in the same run.

    python -m bench            a table, and bench.json
    python -m bench --quick    every cell for a moment only, to see that it works

The three services run as processes on MariaDB with their default settings (log lines go to files),
all in one schema. A closed loop of clients with kept-alive connections sends requests for a number
of seconds, each client the next one when it has its answer. Every write carries an idempotency key.

The baseline is what one such request made the services send to the database, recorded on the wire
(`recorder`), from the pool's pings to the COMMITs and the ROLLBACKs of returned connections. It is
sent again by asyncmy in this process, on uvloop, with fresh ids and keys in the recorded text, by as
many clients, over at most as many connections as the pool of a service has. It decides nothing and
checks nothing, it neither builds nor escapes statements, and rows are fetched but not looked at: it
is what the database and the driver need, and all above it is ours. What the services write for
create-and-confirm-order in several transactions, it writes one after the other on one connection.

After every cell stock and reservations must have moved by exactly what was answered, and `reconcile`
must find nothing; a cell with errors makes the run fail.

    operations   what is measured: requests and their effect
    recorder     what a request makes the services send
    load         the closed loop, and its two ends: HTTP and the driver
    shop         products and orders to measure with, and the proof that they are right
    machine      what it ran on, and where the time went
    report       the table and bench.json

`python -m bench.observability` is another one: what metrics, log lines and traces cost. `bench.capacity`
measures what a process takes for an order, and `bench.surge` simulates what autoscalers make of that.
"""
