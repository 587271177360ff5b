"""How replicas follow a tenfold surge of orders, with what the chart says: `make surge`.

chart        the chart's values, read from what it renders
autoscaler   the algorithm of HorizontalPodAutoscaler
world        orders, pods, and what autoscalers see of them
outcome      what is worth comparing
plot         the picture
"""
