"""The page: CPU seconds of making it for a large and a small network, and its bytes against the limit of 3 MB."""

from __future__ import annotations

import time

from benchmarks.pairs import Ratio, measure
from benchmarks.workspaces import deployed

PAIRS = 5
NETWORKS = ("convselfattn", "csa_digits")


def run() -> list[Ratio]:
    """Collect and render, in turn."""
    from csa_deploy.report.page import MOST_BYTES

    large, small = ((network, lambda network=network: _seconds(network)) for network in NETWORKS)
    found = [measure("report, CPU seconds without pictures", large, small, PAIRS)]
    for network in NETWORKS:
        size = (deployed(network)[0] / "report.html").stat().st_size
        found.append(Ratio.of("report, bytes", network, "the limit", [(size, MOST_BYTES)]))
    return found


def _seconds(network: str) -> float:
    from csa_deploy.report.data import collect
    from csa_deploy.report.page import page_of
    from csa_deploy.workspace import Workspace

    root, _ = deployed(network)
    begun = time.process_time()
    page_of(collect(Workspace(root)), {})
    return time.process_time() - begun
