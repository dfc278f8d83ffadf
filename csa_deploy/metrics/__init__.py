"""Metrics: one table, :data:`csa_deploy.metrics.table.METRICS`, and what its entries are made of."""
