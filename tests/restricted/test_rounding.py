import numpy as np
import pytest
from restricted_networks import resize

from csa_deploy.restricted.check import check
from csa_deploy.restricted.rounding import resize_sizes


def nudged(target: int, size: int) -> float:
    return float(np.nextafter(np.float32(target / size), np.float32(np.inf)))


def plain(target: int, size: int) -> float:
    return float(np.float32(target / size))


@pytest.mark.parametrize("target", [7, 14])
def test_nudged_scales_agree_for_every_map_size(target):
    for size in range(1, 513):
        found = resize_sizes([size], [nudged(target, size)], [target])
        assert found is not None
        assert found.agree([target]), size
        back = resize_sizes([target], [nudged(size, target)], [size])
        assert back is not None
        assert back.agree([size]), size


def test_the_published_scales_disagree_at_nearly_every_size():
    wrong = [size for size in range(1, 513) if not resize_sizes([size], [plain(14, size)], [14]).agree([14])]
    assert {3, 12} <= set(wrong)
    assert len(wrong) > 100


@pytest.mark.parametrize(
    ("scale", "size", "sizes"),
    [
        (plain(14, 12), 12, {"float64": 14, "float32": 14, "mixed": 13}),
        (0.5, 14, {"float64": 7, "float32": 7, "mixed": 7}),
    ],
)
def test_each_arithmetic_computes_as_it_is_said_to(scale, size, sizes):
    found = resize_sizes([size], [scale], [sizes["float64"]])
    assert {name: getattr(found, name)[0] for name in sizes} == sizes


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0])
def test_scales_that_mean_nothing_give_no_size(scale):
    assert resize_sizes([14], [scale], [14]) is None
    assert resize_sizes([14, 14], [1.0], [14, 14]) is None


def findings(network):
    return {finding.rule: finding for finding in check(network, ["drive-os-6"]).scopes[0].findings}


def test_a_resize_that_rounds_differently_is_denied_with_all_sizes_and_its_repair():
    shape = [1, 8, 12, 12]
    found = findings(resize([1, 1, plain(14, 12), plain(14, 12)], [1, 8, 14, 14], shape))["resize.rounding"]
    assert found.verdict == "denied"
    assert "[1, 8, 13, 13]" in found.message
    assert "[1, 8, 14, 14]" in found.message
    assert found.repair == "resize_nudge_scales"
    assert "resize.rounding" not in findings(resize([1, 1, nudged(14, 12), nudged(14, 12)], [1, 8, 14, 14], shape))


def test_a_declared_shape_that_no_arithmetic_gives_is_denied():
    assert "resize.rounding" in findings(resize([1, 1, 0.5, 0.5], [1, 8, 8, 8]))
