"""The static check of drive-os-7 against NVIDIA's validator, on random networks and on onnx's own node tests.

``allowed`` is held to the strictest reading: NVIDIA's parser builds the network, and its validator accepts it. Refused,
skipped, not parsed, crashed: each is an error. CSA_DEPLOY_FUZZ_SEED draws other networks, CSA_DEPLOY_FUZZ_COUNT more.
"""

from __future__ import annotations

import base64
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from random_networks import KINDS, draw, networks

from csa_deploy.restricted.check import check
from csa_deploy.restricted.validator import ValidatorSession, interpret, validator_status
from tools.probe.run import WORKER

pytestmark = pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")

SEED = int(os.environ.get("CSA_DEPLOY_FUZZ_SEED", "1"))
COUNT = int(os.environ.get("CSA_DEPLOY_FUZZ_COUNT", "300"))
NIGHTLY = 3000

# Denied though NVIDIA's validator accepts what its parser builds: the parser builds another network than ONNX means.
MISREAD = {"GridSample", "MatMul"}  # a nearest sampler for cubic; a product that loses its first dimension


def compare(models: Iterable[tuple[str, onnx.ModelProto, dict[str, list[int]]]]) -> tuple[Counter, list[str]]:
    """Number of networks per pair of answers, and what is wrong, in words."""
    table: Counter[tuple[str, str]] = Counter()
    wrong = []
    with ValidatorSession(child=WORKER) as session:
        for name, model, values in models:
            data = base64.b64encode(model.SerializeToString()).decode()
            found = interpret(session.exchange({"onnx": data, "values": values}))
            scope = check(model, ["drive-os-7"]).scopes[0]
            pair = scope.verdict, found["answer"]
            table[pair] += 1
            operators = [made.op_type for made in model.graph.node]
            false_denied = pair == ("denied", "accepted") and not MISREAD & set(operators)
            if (pair[0] == "allowed" and pair[1] != "accepted") or false_denied:
                rules = sorted({finding.rule for finding in scope.findings})
                wrong.append(f"{name} {operators}: {pair}: {found.get('reason', '')} {rules}")
    return table, wrong


def random_models(seed: int, count: int) -> Iterable[tuple[str, onnx.ModelProto, dict[str, list[int]]]]:
    return ((f"{kind} {number}", model, {}) for number, kind, model in networks(seed, count))


def require(table: Counter, wrong: list[str], count: int) -> None:
    assert wrong == [], "\n".join(wrong)
    accepted = table["allowed", "accepted"]
    refused = sum(number for (_, answer), number in table.items() if answer == "refused")
    assert sum(table.values()) >= count
    assert accepted > 0.5 * count and refused > 0.05 * count, table  # else nothing was shown
    unknown = table["unknown", "accepted"] + table["unknown", "refused"]
    assert unknown < 0.01 * count, table  # caution that costs nothing would be worth nothing


@pytest.mark.shows("MEA-03", "ERR-01", needs="NVIDIA's validator")
def test_random_networks() -> None:
    table, wrong = compare(random_models(SEED, COUNT))
    require(table, wrong, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1, 2])
def test_many_random_networks(offset: int) -> None:
    table, wrong = compare(random_models(SEED + offset, NIGHTLY))
    require(table, wrong, NIGHTLY)


def test_the_generator_draws_every_kind_and_repeats_itself() -> None:
    drawn = [(kind, model.SerializeToString()) for _, kind, model in networks(7, 400)]
    assert {kind for kind, _ in drawn} == set(KINDS)
    again = [(kind, model.SerializeToString()) for _, kind, model in networks(7, 400)]
    assert drawn == again
    opsets = {onnx.load_from_string(data).opset_import[0].version for _, data in drawn}
    assert {11, 13, 18, 23} <= opsets
    assert draw(0) is None or draw(0)[0] in KINDS


@pytest.mark.slow
@pytest.mark.shows("MEA-03", needs="NVIDIA's validator")
def test_node_tests_of_the_onnx_package() -> None:
    """All of them, with the values that they give to inputs which shape the network."""
    from onnx.backend.test.case.node import collect_testcases

    models = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests overflow on purpose
        for case in collect_testcases(None):
            if case.model is not None:
                given = zip(case.model.graph.input, case.data_sets[0][0], strict=False)
                models.append((case.name, case.model, {i.name: _values(data) for i, data in given if _values(data)}))
    table, wrong = compare(models)
    assert wrong == [], "\n".join(wrong)
    judged = sum(number for (_, answer), number in table.items() if answer in ("accepted", "refused"))
    agreed = table["allowed", "accepted"] + table["denied", "refused"]
    assert judged > 800 and agreed >= 0.995 * judged


def _values(data: object) -> list[int]:
    if isinstance(data, np.ndarray) and data.dtype.kind in "iu" and data.size <= 64:
        return [int(item) for item in data.reshape(-1)]
    return []


COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resizes() -> Iterable[tuple[str, onnx.ModelProto, dict[str, list[int]]]]:
    """Every combination of a Resize's attributes, by scales and by sizes."""
    kinds = [("linear", {})] + [("nearest", {"nearest_mode": rounding}) for rounding in ROUNDINGS]
    floats, whole = onnx.TensorProto.FLOAT, np.array([1, 2, 12, 4])
    tensors = {"e": np.zeros(0, "f4"), "k": np.array([1, 1, 1.5, 0.5], "f4"), "s": whole}
    ways = itertools.product((11, 13, 19), COORDINATES, kinds, ("scales", "sizes"))
    for opset, coordinates, (mode, extra), by in ways:
        if opset > 11 and coordinates == "tf_half_pixel_for_nn":
            continue
        made = onnx.helper.make_node(
            "Resize",
            ["x", "e", *(["k"] if by == "scales" else ["e", "s"])],
            ["y"],
            mode=mode,
            coordinate_transformation_mode=coordinates,
            **extra,
        )
        graph = onnx.helper.make_graph(
            [made],
            "g",
            [onnx.helper.make_tensor_value_info("x", floats, [1, 2, 8, 8])],
            [onnx.helper.make_tensor_value_info("y", floats, whole.tolist())],
            [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
        )
        full = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
        yield f"{opset} {mode} {coordinates} {extra} by {by}", full, {}


def test_every_kind_of_resize() -> None:
    table, wrong = compare(resizes())
    assert wrong == [], "\n".join(wrong)
    assert table["denied", "not-parsed"] == 8  # TensorFlow's half pixels by sizes, or rounded in other ways
