"""CSA networks for csa-deploy (import name ``csa_models``)."""
