"""What masks and boxes promise."""

import numpy as np
import pytest

from csa_deploy.data.targets import Boxes, Mask


def test_boxes_fill_in_what_is_not_given():
    boxes = Boxes([[0, 0, 4, 3], [1, 1, 1, 2]], [2, 0])
    assert boxes.xyxy.dtype == np.float64 and boxes.labels.dtype == np.int64
    assert boxes.areas.tolist() == [12.0, 0.0]
    assert not boxes.crowd.any() and not boxes.difficult.any() and len(boxes.crowd) == len(boxes.difficult) == 2


def test_no_boxes_are_boxes():
    empty = Boxes(np.zeros((0, 4)), np.zeros(0))
    assert len(empty) == 0 and empty.xyxy.shape == (0, 4) and empty.labels.shape == (0,)


@pytest.mark.parametrize("field", ["labels", "crowd", "difficult", "areas"])
def test_boxes_whose_fields_do_not_fit_are_refused(field):
    rows = {"labels": np.zeros(2), field: np.ones(3)}
    with pytest.raises(ValueError, match=f"2 boxes have {field}"):
        Boxes(np.zeros((2, 4)), **rows)


def test_a_mask_is_integers_of_two_axes():
    assert Mask(np.zeros((3, 5), np.uint8)).size == (3, 5)
    for wrong in (np.zeros((3, 5)), np.zeros((1, 3, 5), np.uint8)):
        with pytest.raises(ValueError, match="a mask is"):
            Mask(wrong)


def test_digests_tell_every_change_and_nothing_else():
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    masks = [Mask(mask), Mask(mask.reshape(3, 2)), Mask(mask, ignore=0), Mask(mask + 1)]
    assert Mask(mask.astype(np.int32)).digest() == masks[0].digest()
    box, whole = [[0.0, 0.0, 2.0, 2.0]], {"labels": [1]}
    boxes = [
        *(Boxes(box, **whole), Boxes(box, labels=[2]), Boxes([[0, 0, 2, 2.5]], **whole), Boxes(box, [1], crowd=[True])),
        *(Boxes(box, [1], difficult=[True]), Boxes(box, [1], areas=[3.0]), Boxes(np.zeros((0, 4)), [])),
    ]
    digests = [target.digest() for target in (*masks, *boxes)]
    assert len(set(digests)) == len(digests)
