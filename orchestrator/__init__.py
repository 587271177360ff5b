"""The orchestrator: validate the customer, create the order, confirm it, exactly once.

The main job is a saga: a row that says what was asked, how far it came and who works on it. It is
committed before the first call and after every step, so whoever finds it can drive it on:

    handlers   start a saga or join the one that the idempotency key started
    driver     take the next step, record it, until the saga ends or the peers fail
    sweeper    in every replica: take over sagas whose lease ran out
    models     the saga's states and its rules
    commands   the rows: start, take over, record; every write is fenced by the lease's token
    answers    what a saga that ended tells its client

Every call to orders carries the key `<saga id>:<step>`, so a step that is done twice has one effect.
"""
