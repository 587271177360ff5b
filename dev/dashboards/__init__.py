"""The three Grafana boards, written from here to charts/b2b-orders/dashboards.

grafana   a panel, a row, a board, in Grafana's JSON
promql    expressions that several panels need
boards    the three: orders, services, platform

`make docs` writes them; a test checks that the files are what the code says now.
"""
