"""`python -m orchestrator job`: a file of orders, each run as the main job.

    command   options, exit code
    runner    takes orders as there is room for them, until the file or the operator's patience ends
    download  a file from an address
    files     JSON Lines and CSV in, through lines and table
    orders    what an order of a file must say
    client    one order over HTTP, tried until it has an end
    results   the line that reports an order, and their totals
    progress  what the operator sees meanwhile

An order's idempotency key comes from its reference and nothing else. So a file can be run again,
moved, split or sorted, and nothing that is done is done twice; a reference that stands twice in it
is for the orchestrator to replay or refuse, and nothing has to be remembered here.
"""
