"""I/O formats on both sides of TensorRT 11, and against the types of the graph."""

from __future__ import annotations

import pytest

from csa_deploy.errors import UsageError
from csa_deploy.records.build import TensorInfo
from csa_deploy.trtexec.formats import require_dla_formats, with_formats
from csa_deploy.trtexec.versions import parse_version

FLOAT, HALF = TensorInfo("x", "FLOAT", (1, 3)), TensorInfo("h", "HALF", (1, 3))


def given(formats: str | None, version: str, *tensors: TensorInfo, weak: bool = False) -> list[str]:
    found = with_formats(tensors or (FLOAT,), formats, "input_formats", parse_version(version), weak=weak)
    return [tensor.dtype for tensor in found]


@pytest.mark.parametrize("version", ["8.6", "10.0", "10.16"])
def test_up_to_10_16_a_format_states_its_type(version: str) -> None:
    assert given("fp32:chw16", version) == ["FLOAT"]
    with pytest.raises(UsageError, match="takes formats as TYPE:FORMAT") as caught:
        given("chw16", version)
    assert caught.value.fix == "write fp16:chw16"
    with pytest.raises(UsageError, match="TYPE:FORMAT"):
        given("float:chw16", version)


@pytest.mark.parametrize("version", ["11.0", "11.1"])
def test_from_11_a_format_states_no_type(version: str) -> None:
    assert given("chw16", version, FLOAT, HALF) == ["FLOAT", "HALF"]
    with pytest.raises(UsageError, match="takes no types") as caught:
        given("fp16:chw16", version)
    assert caught.value.fix == "write chw16"


@pytest.mark.parametrize("version", ["10.0", "10.14", "10.15", "10.16"])
def test_a_strongly_typed_build_keeps_the_types_of_the_graph(version: str) -> None:
    with pytest.raises(UsageError, match="'x' is fp32 in the graph"):
        given("fp16:chw16", version)
    assert given("fp16:chw16", version, HALF) == ["HALF"]
    assert given("fp32:chw,fp16:chw16", version, FLOAT, HALF) == ["FLOAT", "HALF"]


@pytest.mark.parametrize("version", ["8.6", "10.7"])
def test_a_weakly_typed_build_has_the_types_of_its_formats(version: str) -> None:
    assert given("fp16:chw16", version, FLOAT, HALF, weak=True) == ["HALF", "HALF"]
    assert given("int8:chw32,fp16:chw", version, FLOAT, FLOAT, weak=True) == ["INT8", "HALF"]
    assert given(None, version, weak=True) == ["FLOAT"]


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="2 formats for 3 tensors"):
        given("fp32:chw,fp32:chw", "8.6", FLOAT, FLOAT, FLOAT)
    with pytest.raises(UsageError, match="unknown format 'nchw'"):
        given("fp32:nchw", "8.6")
    with pytest.raises(UsageError, match="unknown format 'hwc16'"):
        given("fp32:chw+hwc16", "8.6")
    assert given("fp32:chw+hwc16", "10.3") == ["FLOAT"]


def test_8_6_keeps_an_int8_input_only_where_its_format_says_so() -> None:
    x = TensorInfo("x", "INT8", (1, 3))
    with pytest.raises(UsageError, match="turns INT8 inputs into FP32"):
        given(None, "8.6", x, weak=True)
    assert given("int8:chw", "8.6", x, weak=True) == given(None, "10.0", x) == ["INT8"]


IMAGE, MAP = (1, 3, 8, 8), (1, 16, 8, 8)


@pytest.mark.parametrize(
    ("dtype", "shape", "formats", "option", "fits"),
    [
        ("HALF", MAP, "chw16", "input_formats", True),
        ("HALF", MAP, "chw32", "input_formats", False),
        ("HALF", MAP, "dla_linear", "output_formats", True),
        ("HALF", MAP, "chw", "output_formats", False),
        ("INT8", MAP, "chw32", "input_formats", True),
        ("INT8", MAP, "chw16", "input_formats", False),
        ("INT8", MAP, "int8:chw32+dla_linear", "output_formats", True),
        ("INT8", MAP, "int8:chw32+chw", "output_formats", False),
        ("HALF", IMAGE, "dla_hwc4", "input_formats", True),
        ("INT8", (1, 4, 8, 8), "dla_hwc4", "input_formats", True),
        ("INT8", (1, 1, 8, 8), "int8:chw4", "input_formats", True),
        ("HALF", (1, 2, 8, 8), "dla_hwc4", "input_formats", False),
        ("HALF", (1, 5, 8, 8), "dla_hwc4", "input_formats", False),
        ("HALF", IMAGE, "dla_hwc4", "output_formats", False),
        ("FLOAT", IMAGE, "dla_linear", "input_formats", False),
    ],
)
def test_formats_at_the_border_of_a_dla_loadable(
    dtype: str, shape: tuple[int, ...], formats: str, option: str, fits: bool
) -> None:
    tensor = TensorInfo("x", dtype, shape)
    if fits:
        require_dla_formats([tensor, tensor], formats, option)
        return
    with pytest.raises(UsageError, match="DLA loadable") as caught:
        require_dla_formats([tensor, tensor], formats, option)
    assert caught.value.fix


def test_each_tensor_is_held_against_its_own_format() -> None:
    tensors = [TensorInfo("a", "HALF", MAP), TensorInfo("b", "INT8", MAP)]
    require_dla_formats(tensors, "chw16,chw32", "output_formats")
    with pytest.raises(UsageError, match="'b'"):
        require_dla_formats(tensors, "chw16,chw16", "output_formats")
