"""How far each layer is from its limit: the device's measured ceilings, and the network's floor time under them.

Source: Williams, Waterman, Patterson (2009), Roofline, Communications of the ACM 52.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from csa_deploy.records.device import Ceilings, EngineLayer, EngineProfile, Roofline
from csa_deploy.records.profile import GraphCost

_SIDE = 4096
REPEATS = 20
COPY_BYTES = 2**30
# Precision of a node -> ceiling that holds for it; what is not here, such as comparisons, counts as FP32.
AS_FAST_AS = {"fp16": "fp16", "bf16": "fp16", "int8": "int8"}


def measure_ceilings() -> Ceilings | str:
    """Ceilings of the first CUDA device, or why they were not measured."""
    from csa_deploy.engine.device import cuda_state

    if not cuda_state().devices:
        return str(cuda_state().reason)
    try:
        import torch
    except ModuleNotFoundError:
        return "measured with PyTorch, which is not installed"
    if not torch.cuda.is_available():
        return "this PyTorch has no CUDA"
    try:
        return _measured()
    except RuntimeError as error:  # PyTorch's own type, of which running out of memory is one
        return f"PyTorch on the CUDA device: {str(error).splitlines()[0]}"
    finally:
        torch.cuda.empty_cache()


def _measured() -> Ceilings:
    import torch

    operations = {name: _matmul(dtype) for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16))}
    with contextlib.suppress(AttributeError, RuntimeError):  # not in every PyTorch, nor for every device
        whole = torch.ones(_SIDE, _SIDE, dtype=torch.int8, device="cuda")
        operations["int8"] = 2 * _SIDE**3 / _seconds(lambda: torch._int_mm(whole, whole.T))
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    moved = 2 * COPY_BYTES / _seconds(lambda: target.copy_(source))
    return Ceilings(torch.cuda.get_device_name(), operations, moved)


def _matmul(dtype: Any) -> float:
    import torch

    square = torch.randn(_SIDE, _SIDE, dtype=dtype, device="cuda")
    return 2 * _SIDE**3 / _seconds(lambda: square @ square)


def _seconds(work: Callable[[], Any]) -> float:
    """Best time of one call, by CUDA events: a ceiling is what the device can do, not what it does on average."""
    import torch

    best = float("inf")
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return best


def floor_ms(cost: GraphCost, ceilings: Ceilings) -> float | None:
    """Least time of a network under the ceilings, however well an engine fuses it.

    Returns:
        The larger of the arithmetic of all nodes and the transfer of weights, inputs and outputs; None when a shape is
        unknown, or the network computes in a precision without a ceiling.
    """
    arithmetic = [_arithmetic_s(node.operations, node.precision, ceilings) for node in cost.nodes]
    known = [seconds for seconds in arithmetic if seconds is not None]
    if len(known) < len(arithmetic) or cost.io_bytes is None:
        return None
    return round(1e3 * max(sum(known), (cost.weight_bytes + cost.io_bytes) / ceilings.bytes_per_second), 5)


def with_floors(inspected: Mapping[str, EngineProfile], ceilings: Ceilings | str) -> dict[str, EngineProfile]:
    """Engines with the least time of each layer.

    Args:
        inspected: by label.
        ceilings: of the device, or why there are none.
    """
    return {
        label: replace(found, layers=found.layers and tuple(_with_floor(layer, ceilings) for layer in found.layers))
        for label, found in inspected.items()
    }


def _with_floor(layer: EngineLayer, ceilings: Ceilings | str) -> EngineLayer:
    if isinstance(ceilings, str) or layer.bytes is None:
        return layer
    arithmetic = _arithmetic_s(layer.operations, layer.precision, ceilings)
    if arithmetic is None:
        return layer
    return replace(layer, floor_us=round(1e6 * max(arithmetic, layer.bytes / ceilings.bytes_per_second), 3))


def roofline_of(costs: Mapping[str, GraphCost], ceilings: Ceilings | str) -> Roofline:
    """The ceilings with the floor of each graph, or why there are none."""
    if isinstance(ceilings, str):
        return Roofline(reason=ceilings)
    return Roofline(ceilings=ceilings, floor_ms={label: floor_ms(cost, ceilings) for label, cost in costs.items()})


def _arithmetic_s(operations: int | None, precision: str, ceilings: Ceilings) -> float | None:
    if not operations:
        return operations
    peak = ceilings.operations_per_second.get(AS_FAST_AS.get(precision, "fp32"))
    return None if peak is None else operations / peak
