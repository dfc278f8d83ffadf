"""Damaged files through every reader: a documented end with one line, no traceback, 60 s and 4 GB at most.

``CSA_DEPLOY_FUZZ=N`` adds N files with seeds that nobody has tried. A failure names its seed; ``damaged_file`` makes
the file again.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pytest
from mutate import mutated
from onnx import ModelProto
from pool import read_all
from sources import operator_models, packaged, quantized, weighted

FILES, CHUNK = 500, 50
VERBS = ("inspect", "diff", "fingerprint", "optimize", "repair", "extract")
FRESH = int(os.environ.get("CSA_DEPLOY_FUZZ", "0"))


@cache
def origins() -> list[list[tuple[str, ModelProto]]]:
    own = [("quantized", quantized()), ("weighted", weighted())]
    return [operator_models(), own, packaged() or own]


def damaged_file(seed: int) -> tuple[str, bytes]:
    """The name of an undamaged model, and the damaged file of a seed."""
    random = Random(seed * 7919 + 1)
    name, model = random.choice(random.choices(origins(), [5, 3, 2])[0])
    return name, mutated(model, seed)


def failures(verb: str, seeds: range, folder: Path) -> tuple[list[str], Counter[str]]:
    files = ((seed, *damaged_file(seed)) for seed in seeds)
    named = ((f"{verb}, seed {seed}, {name}", data) for seed, name, data in files)
    found = list(read_all(verb, named, folder))
    bad = [f"{name}: {outcome.failure}" for name, outcome in found if outcome.failure]
    return bad, Counter(outcome.outcome for _, outcome in found)


@pytest.mark.parametrize("start", range(0, FILES, CHUNK))
@pytest.mark.shows("MEA-07", "ERR-05")
def test_check_judges_or_refuses_damaged_files(start: int, tmp_path: Path) -> None:
    bad, outcomes = failures("check", range(start, start + CHUNK), tmp_path)
    assert not bad, "\n".join(bad)
    assert outcomes["done"] and outcomes["2"], outcomes


@pytest.mark.parametrize("verb", VERBS)
def test_other_readers_take_or_refuse_damaged_files(verb: str, tmp_path: Path) -> None:
    start = 1000 * (1 + VERBS.index(verb))
    bad, outcomes = failures(verb, range(start, start + 60), tmp_path)
    assert not bad, "\n".join(bad)
    assert outcomes["done"], outcomes


@pytest.mark.parametrize("verb", ["check", *VERBS])
def test_undamaged_files_are_read(verb: str, tmp_path: Path) -> None:
    """Without this, a reader that refuses everything would pass."""
    files = [(name, model.SerializeToString()) for name, model in [*origins()[0][::10], *origins()[1]]]
    outcomes = dict(read_all(verb, files, tmp_path))
    assert not [(name, outcome.failure) for name, outcome in outcomes.items() if outcome.failure]
    assert sum(outcome.outcome == "done" for outcome in outcomes.values()) >= len(files) - 1


@pytest.mark.slow
@pytest.mark.skipif(not FRESH, reason="CSA_DEPLOY_FUZZ names no number of files")
@pytest.mark.parametrize("verb", ["check", *VERBS])
def test_files_that_nobody_has_tried(verb: str, tmp_path: Path) -> None:
    start = int(time.time())
    count = FRESH if verb == "check" else FRESH // 10
    bad, _ = failures(verb, range(start, start + count), tmp_path)
    assert not bad, "\n".join(bad)


def test_a_seed_always_makes_the_same_file() -> None:
    assert [damaged_file(seed) for seed in range(20)] == [damaged_file(seed) for seed in range(20)]
    assert len({damaged_file(seed)[1] for seed in range(20)}) == 20
