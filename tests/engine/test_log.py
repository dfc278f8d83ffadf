from __future__ import annotations

from csa_deploy.engine import log

NOISE = (
    "[W] 'colored' module is not installed, will not use colors when logging.\n"
    "[E] [checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)\n"
)


def test_reason_is_taken_from_below_an_invalid_node() -> None:
    text = NOISE + (
        "[E] ModelImporter.cpp:151: ERROR: ModelImporter.cpp:489 In function parseNode:\n"
        "    [6] Invalid Node - /net/conv\n"
        "[E] In node 0 with name: /net/conv and operator: Conv (parseNode): INVALID_NODE: Invalid Node - /net/conv\n"
        "    ITensor::getDimensions: Error Code 4: API Usage Error (/net/conv: input type is Float, kernel Half.)\n"
        "[!] Could not parse ONNX correctly\n"
    )
    assert log.first_error(text) == ("Conv '/net/conv': API Usage Error (/net/conv: input type is Float, kernel Half.)")


def test_node_line_wins_over_the_parsers_frame() -> None:
    text = (
        "[E] ModelImporter.cpp:143: --- End node ---\n"
        "[E] In node 1 with name: /net/foo and operator: Foo (check): INVALID_NODE: Plugin not found\n"
    )
    assert log.first_error(text) == "Foo '/net/foo': INVALID_NODE: Plugin not found"


def test_graph_errors_have_no_node() -> None:
    text = "[E] In node -1 with name:  and operator:  (parseGraph): INVALID_GRAPH: Failed to sort\n"
    assert log.first_error(text) == "INVALID_GRAPH: Failed to sort"


def test_builder_errors_lose_their_code_and_noise_is_no_error() -> None:
    assert log.first_error(NOISE) == ""
    text = NOISE + "[E] IBuilder::buildSerializedNetwork: Error Code 1: Myelin (no tactics)\n"
    assert log.first_error(text) == "Myelin (no tactics)"


def test_warnings_appear_once_in_order() -> None:
    assert log.warnings(NOISE + "[W] b\n[W] a\n[V] c\n[W] b\n") == ("b", "a")


def test_safety_scope_lines() -> None:
    text = (
        "[W] Safety scope check skipped for multiple static shape\n"
        '[E] Error Code: 4: Layer {LRN} "/net/lrn" failed safety scope validation\n'
        "[E] IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (failed safety scope validation, please)\n"
    )
    assert log.scope_skipped(text) == "Safety scope check skipped for multiple static shape"
    assert log.scope_refusals(text) == ('Layer {LRN} "/net/lrn" failed safety scope validation',)
    assert log.scope_skipped(NOISE) == ""
