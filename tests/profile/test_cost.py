"""Cost of nodes against arithmetic by hand, and times by node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from csa_deploy.profile.cost import graph_cost
from csa_deploy.profile.layers import layer_times
from csa_deploy.profile.roofline import floor_ms
from csa_deploy.records.device import Ceilings


@pytest.fixture()
def graph(tmp_path: Path, make_tiny: Callable[..., onnx.ModelProto]) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(make_tiny(), path)
    return path


def test_operations_and_bytes_of_each_node(graph: Path) -> None:
    cost = graph_cost(graph)
    by = {node.name: node for node in cost.nodes}
    assert by["conv"].macs == 8 * 16 * 16 * 27
    assert by["conv"].operations == 2 * by["conv"].macs
    assert by["conv"].bytes == 4 * (3 * 256 + 8 * 27 + 8 * 256)
    assert (by["relu"].macs, by["relu"].operations) == (0, 8 * 256)
    assert by["pool"].operations == 8 * 256
    assert by["flatten"].operations == 0
    assert by["relu"].inputs == ("conv",)
    assert by["conv"].intensity == pytest.approx(by["conv"].operations / by["conv"].bytes, abs=5e-4)
    assert cost.weight_bytes == 4 * (8 * 27 + 80)


def test_memory_is_the_largest_sum_alive(graph: Path) -> None:
    # The convolution's output and that of the activation: the input is dead by then, and smaller.
    assert graph_cost(graph).activation_bytes == 2 * 4 * 8 * 256


def test_every_node_gets_a_time(graph: Path, tmp_path: Path) -> None:
    got = layer_times(graph, tmp_path, iterations=3, threads=1, seed=0)
    assert set(got.times_us) == {node.name for node in graph_cost(graph).nodes}
    assert all(t >= 0 for t in got.times_us.values())
    assert "not the target" in got.method


def test_floor_is_the_larger_of_arithmetic_and_what_must_move(graph: Path) -> None:
    cost = graph_cost(graph)
    only_transfer = Ceilings("made up", {"fp32": 1e30}, 1e9)
    moved = cost.weight_bytes + cost.io_bytes
    assert cost.io_bytes == 4 * (3 * 16 * 16 + 10)
    assert floor_ms(cost, only_transfer) == pytest.approx(moved / 1e6, rel=1e-3)
    only_compute = Ceilings("made up", {"fp32": 1e9}, 1e30)
    assert floor_ms(cost, only_compute) == pytest.approx(sum(n.operations for n in cost.nodes) / 1e6, rel=1e-3)


def test_no_floor_without_the_ceiling_of_a_precision(graph: Path) -> None:
    cost = graph_cost(graph)
    int8 = replace(cost, nodes=(replace(cost.nodes[0], precision="int8"), *cost.nodes[1:]))
    assert floor_ms(int8, Ceilings("made up", {"fp32": 1e9, "fp16": 2e9}, 1e30)) is None
    assert floor_ms(int8, Ceilings("made up", {"fp32": 1e9, "int8": 1e30}, 1e30)) < floor_ms(
        cost, Ceilings("made up", {"fp32": 1e9}, 1e30)
    )
