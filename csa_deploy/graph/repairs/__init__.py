"""The repairs of :mod:`csa_deploy.graph.repair`, one per file."""
