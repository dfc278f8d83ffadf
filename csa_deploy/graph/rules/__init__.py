"""The rewrites of :mod:`csa_deploy.graph.optimize`, one per file."""
