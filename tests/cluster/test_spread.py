"""What is on its way to a scheduler: few shares at a time, however many there are."""

from __future__ import annotations

import threading

import numpy as np
from distributed import Client

from csa_deploy.cluster.spread import _EACH
from tests.cluster.conftest import DaskProcesses
from tests.cluster.test_same_bytes import compared, feature_maps

SAMPLES = 90
WORKERS = 2


def test_a_scheduler_has_few_shares_at_a_time(dask_cluster: DaskProcesses) -> None:
    data = np.random.default_rng(2).standard_normal((SAMPLES, 3, 8, 8)).astype("f4")
    seen, ended = set[str](), threading.Event()
    most = [0]

    def watch() -> None:
        with Client(dask_cluster.address) as client:
            while not ended.is_set():
                keys = client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks])
                shares = {key for key in keys if "run_share" in key}
                seen.update(shares)
                most[0] = max(most[0], len(shares))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        compared(feature_maps(1), data, cluster=dask_cluster.address)
    finally:
        ended.set()
        thread.join()
    assert len(seen) > 2 * WORKERS * _EACH, "most of the 88 shares were looked at"
    assert 0 < most[0] <= 2 * WORKERS * _EACH, "those that ended may not all be released yet"
