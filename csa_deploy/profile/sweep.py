"""How cost grows with batch and input size: the network exported anew at each, timed on this machine's CPU."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.records.sweep import Sweep, SweepPoint

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.source import Source

_METHOD = "The network exported anew at each point, in ONNX Runtime on this machine's CPU: not the target's latency."


Timed = tuple[int | None, float, tuple[float, float] | None]  # MACs, median and its interval


def parse_points(flag: str, text: str) -> list[int]:
    """``1,2,4`` or ``START:STOP:STEP`` (both ends included).

    Raises:
        UsageError: another form.
    """
    if re.fullmatch(r"\d+(,\d+)*", text):
        points = [int(v) for v in text.split(",")]
    elif match := re.fullmatch(r"(\d+):(\d+):([1-9]\d*)", text):
        start, stop, step = map(int, match.groups())
        if start > stop:
            raise UsageError(f"{flag} '{text}': start {start} lies above stop {stop}", fix="write START:STOP:STEP")
        points = list(range(start, stop + 1, step))
    else:
        points = []
    if not points or min(points) < 1:
        what = "holds a number below 1" if points else "is no list of numbers"
        raise UsageError(f"{flag} '{text}' {what}", fix="write 1,2,4,8 or START:STOP:STEP")
    return points


def sweep(
    source: Source,
    config: Config,
    *,
    batches: Sequence[int] = (),
    sides: Sequence[int] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sweep:
    """Measure; a point that the network refuses is kept with the reason.

    Raises:
        UsageError: an ONNX file, whose batch and size are fixed.
    """
    if source.kind == "onnx":
        raise UsageError(f"{source.spec}: an ONNX file has one batch and size", fix="sweep the PyTorch network instead")
    asked: list[tuple[Literal["batch", "side"], int, int | None]] = [("batch", batch, None) for batch in batches]
    asked += [("side", config.batch or 1, side) for side in sides]
    rows = []
    timed: dict[tuple[int | None, ...], Timed] = {}
    for done, (kind, batch, side) in enumerate(asked):
        rows.append(_measure(source, config, kind, batch, side, timed))
        progress(done + 1, len(asked))
    return Sweep(_METHOD, config.iterations, tuple(rows))


def _measure(
    source: Source,
    config: Config,
    kind: Literal["batch", "side"],
    batch: int,
    side: int | None,
    timed: dict[tuple[int | None, ...], Timed],
) -> SweepPoint:
    from csa_deploy.export.exporter import export_module
    from csa_deploy.export.opsets import exported_opset

    size = (side, side) if side else config.size
    try:
        network = source.make_network(input_size=size, batch=batch)
        shape = tuple(network.input_specs[0].shape)
        if shape not in timed:  # the two sweeps meet in one point
            model = export_module(
                network.module,
                network.inputs,
                network.output_names,
                opset=exported_opset(config),
                exporter=config.exporter,
            ).model
            timed[shape] = _time(model, config)
    except (CsaDeployError, RuntimeError, ValueError) as error:
        return SweepPoint(kind, batch, side or 0, reason=(str(error).splitlines() or [type(error).__name__])[0])
    return SweepPoint(kind, batch, int(shape[-1] or 0), *timed[shape])


def _time(model: Any, config: Config) -> Timed:
    import onnx

    from csa_deploy.graph.stats import graph_statistics
    from csa_deploy.profile.latency import measure
    from csa_deploy.runners.feeds import random_feeds
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "point.onnx"
        onnx.save(model, path)
        with OnnxRuntimeRunner(path, threads=config.threads, spin=False, name="sweep") as runner:
            feeds = random_feeds(runner.input_specs, config.seed)
            found = measure(runner, feeds, iterations=config.iterations, warmup=config.warmup)
    low, high = found.intervals_ms["50"] or (None, None)
    interval = None if low is None or high is None else (low, high)
    return graph_statistics(model).macs, found.median_ms, interval
