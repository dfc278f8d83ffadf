"""How cost grows with batch and input size: the network exported anew at each, timed on this machine's CPU."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import CsaDeployError, UsageError

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.source import Source

_METHOD = "The network exported anew at each point, in ONNX Runtime on this machine's CPU: not the target's latency."


@dataclass(frozen=True)
class Point:
    """One batch and size.

    Attributes:
        kind: ``"batch"`` or ``"side"``, what was swept.
        batch: samples per inference.
        side: of the square input in pixels.
        macs: multiply-accumulates of one inference.
        median_ms: latency of one inference; None when it was not measured.
        interval_ms: 99 % interval of the median; None of too few inferences.
        reason: why it was not measured.
    """

    kind: str
    batch: int
    side: int
    macs: int | None = None
    median_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    reason: str = ""


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
) -> dict[str, Any]:
    """Measure; a point that the network refuses is kept with the reason.

    Returns:
        ``schema_version``, ``method``, ``iterations`` and ``rows``, one :class:`Point` each.

    Raises:
        UsageError: an ONNX file, whose batch and size are fixed.
    """
    if source.kind == "onnx":
        raise UsageError(f"{source.spec}: an ONNX file has one batch and size", fix="sweep the PyTorch network instead")
    asked = [("batch", batch, None) for batch in batches] + [("side", config.batch or 1, side) for side in sides]
    rows = []
    timed: dict[tuple[int | None, ...], Timed] = {}
    for done, (kind, batch, side) in enumerate(asked):
        rows.append(asdict(_measure(source, config, kind, batch, side, timed)))
        progress(done + 1, len(asked))
    return {"schema_version": 1, "method": _METHOD, "iterations": config.iterations, "rows": rows}


def _measure(
    source: Source, config: Config, kind: str, batch: int, side: int | None, timed: dict[tuple[int | None, ...], Timed]
) -> Point:
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
        return Point(kind, batch, side or 0, reason=(str(error).splitlines() or [type(error).__name__])[0])
    return Point(kind, batch, int(shape[-1] or 0), *timed[shape])


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
