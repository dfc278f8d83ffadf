import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.tasks.rows import LENGTH, MOST_BOXES, MOST_CLASSES, packed, unpacked


@pytest.mark.parametrize("seed", range(20))
def test_a_table_comes_back_to_the_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, MOST_BOXES + MOST_CLASSES + 1))
    table = np.concatenate([rng.normal(size=(count, 1)), rng.integers(0, 2**20, (count, 5))], axis=1)
    table[:, 1] %= 4096
    table[rng.random(count) < 0.3, 0] = np.nan
    assert packed(table).shape == (LENGTH,) and np.isfinite(packed(table)).all()
    assert np.array_equal(unpacked(packed(table)), table, equal_nan=True)


def test_the_largest_numbers_that_there_are() -> None:
    table = np.asarray([[-0.5, 4095, 2**20 - 1, 2**20 - 1, 2**20 - 1, 2**20 - 1], [np.nan, 0, 0, 0, 0, 0]])
    assert np.array_equal(unpacked(packed(table)), table, equal_nan=True)


def test_more_rows_than_there_is_room_for_are_refused() -> None:
    table = np.zeros((MOST_BOXES + MOST_CLASSES + 1, 6))
    table[:, 1] = np.arange(len(table))
    with pytest.raises(UsageError, match="161 classes on one sample"):
        packed(table)
