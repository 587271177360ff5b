"""Customers: who may order.

The simplest service, and the place to learn the stations from: handlers (path, headers, body) →
schemas (what goes over the wire) → commands, queries → models. `app` puts them together.
"""
