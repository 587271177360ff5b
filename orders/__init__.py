"""Orders: products, their stock, and orders that reserve and sell it.

The stations of a request are those of every service (see customers). What is special here:

    models     the rules on one row: product.reserve(qty), order.confirm(now)
    stock      locking products in id order and writing what changed, for any number of rows at once
    rows       the same for orders and their history
    commands   the rules across rows: create, confirm, cancel, expire; each takes a list of requests
    reconcile  proves that stock, reservations and totals equal the ledger

A command on a list costs a fixed number of statements, whatever the number of requests and items.
"""
