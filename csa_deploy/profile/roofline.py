"""How far each layer is from its limit: the device's measured ceilings, and the network's floor time under them.

Source: Williams, Waterman, Patterson (2009), Roofline, Communications of the ACM 52.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from csa_deploy.profile.cost import GraphCost

SIDE = 4096
REPEATS = 20
COPY_BYTES = 2**30


@dataclass(frozen=True)
class Ceilings:
    """What the device reached in a plain test.

    Attributes:
        device: its name.
        operations_per_second: by precision, of a 4096 x 4096 matrix product.
        bytes_per_second: read and written while copying 1 GiB.
    """

    device: str
    operations_per_second: dict[str, float]
    bytes_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def measure_ceilings() -> Ceilings | str:
    """Ceilings of the first CUDA device, or why they were not measured."""
    from csa_deploy.engine.device import cuda_state

    if not cuda_state().devices:
        return str(cuda_state().reason)
    import torch

    if not torch.cuda.is_available():
        return "this PyTorch has no CUDA"
    operations = {name: _matmul(dtype) for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16))}
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    moved = 2 * COPY_BYTES / _seconds(lambda: target.copy_(source))
    return Ceilings(torch.cuda.get_device_name(), operations, moved)


def _matmul(dtype: Any) -> float:
    import torch

    square = torch.randn(SIDE, SIDE, dtype=dtype, device="cuda")
    return 2 * SIDE**3 / _seconds(lambda: square @ square)


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
    """Least time under the ceilings: per node the larger of compute and transfer; None when a shape is unknown.

    Nodes count one by one, so fusion, which saves transfers, can go below it.
    """
    total = 0.0
    for node in cost.nodes:
        if node.operations is None or node.bytes is None:
            return None
        peak = ceilings.operations_per_second.get(node.precision, ceilings.operations_per_second["fp32"])
        total += max(node.operations / peak, node.bytes / ceilings.bytes_per_second)
    return round(1e3 * total, 5)
