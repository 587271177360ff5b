"""The story of an order: `python -m orchestrator trace`.

command  the options, what is printed, the exit code
story    what is found: sagas in the database, orders and their ledger over HTTP
page     the story as tables
traces   spans from a file or from Jaeger
spans    OTLP decoded
tree     a trace as a tree
"""
