"""Which processes a training has: as asked, as torchrun or SLURM started, or by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.train.devices import launched, processes
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.recipe import Recipe

ASKED = {"devices": 8, "nodes": 2}
TORCHRUN = {"LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"}
SLURM = {"SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
INTERACTIVE = {**SLURM, "SLURM_JOB_NAME": "bash"}


@pytest.fixture(autouse=True)
def nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SLURM_") or name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "NODE_RANK"):
            monkeypatch.delenv(name)


def options(**values: object) -> TrainOptions:
    asked = {"accelerator": "cpu", **values}
    return TrainOptions("digits", Path("out"), Recipe(epochs=1, global_batch=8, lr=0.1), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [
        ({}, {}, (1, 1)),
        (ASKED, {}, (8, 2)),
        ({}, TORCHRUN, (8, 2)),
        (ASKED, TORCHRUN, (8, 2)),
        ({}, {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, (4, 1)),
        ({}, SLURM, (8, 2)),
        ({}, INTERACTIVE, (1, 1)),  # an allocation without srun: nothing is started yet
    ],
)
def test_devices_and_nodes(
    asked: dict, environment: dict, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes(options(**asked)) == expected


def test_nodes_that_cannot_find_each_other_are_refused() -> None:
    with pytest.raises(EnvironmentLacksError, match="MASTER_ADDR, MASTER_PORT, NODE_RANK not set"):
        launched(options(**ASKED))


@pytest.mark.parametrize(
    ("asked", "given", "named"),
    [({"devices": 4}, {"SLURM_NTASKS_PER_NODE": "8"}, "does not match"), ({}, {}, "--ntasks-per-node=")],
)
def test_what_slurm_did_not_start_is_refused(
    asked: dict, given: dict, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SLURM, "SLURM_LOCALID": "0", "SLURM_NODEID": "0", **given}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=named):
        launched(options(**asked))
