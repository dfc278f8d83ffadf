"""Shares cover all samples once in whole batches, and what is kept of them comes back whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csa_deploy.cluster.parts import KeptShares, SharePart, shares_of


@given(st.integers(1, 5000), st.integers(1, 70))
def test_shares_cover_all_samples_once_in_whole_batches(samples: int, batch: int) -> None:
    shares = shares_of(samples, batch)
    assert [index for share in shares for index in share] == list(range(samples))
    assert all(len(share) % batch == 0 for share in shares[:-1])
    assert len(shares[0]) == min(samples, 2 * batch) and len(shares) <= 129
    assert all(len(share) > 0 for share in shares)


@pytest.mark.parametrize(
    ("samples", "batch", "sizes"),
    [(1, 1, [1]), (2, 1, [2]), (3, 1, [2, 1]), (7, 4, [7]), (9, 4, [8, 1]), (260, 1, [2, *[3] * 86])],
)
def test_sizes_of_shares(samples: int, batch: int, sizes: list[int]) -> None:
    assert [len(share) for share in shares_of(samples, batch)] == sizes


def part(seed: int = 0) -> SharePart:
    draw = np.random.default_rng(seed).standard_normal(5)
    draw[1], draw[2] = np.nan, -0.0
    return SharePart({"0/y/snr_db": draw, "inputs 0": np.arange(64, dtype=np.uint8)}, {"ids": ["ä/1.png"], "n": None})


def test_a_part_comes_back_as_it_was() -> None:
    back = SharePart.from_bytes(part().to_bytes())
    assert back.facts == part().facts and back.arrays.keys() == part().arrays.keys()
    assert all(back.arrays[name].tobytes() == array.tobytes() for name, array in part().arrays.items())
    assert back.sha256() == part().sha256() != part(1).sha256()


@pytest.mark.parametrize("size", [0, 10, -1])
def test_a_kept_share_that_is_damaged_is_run_again(tmp_path: Path, size: int) -> None:
    kept, shares = KeptShares(tmp_path / "w" / "shares", "k"), shares_of(9, 2)
    for share in shares:
        kept.put(share, part(share.start))
    file = next((tmp_path / "w" / "shares").rglob(f"{shares[1].start}-*.npz"))
    file.write_bytes(file.read_bytes()[:size])
    assert [share for share, _ in kept.of(shares)] == [shares[0], *shares[2:]]
    assert list(KeptShares(tmp_path / "w" / "shares", "other").of(shares)) == []
    kept.forget()
    assert not (tmp_path / "w").exists()
