"""Whether INT8 is worth making of a graph that is not quantized yet, before anything is calibrated.

Q/DQ goes where :func:`csa_deploy.precision.qdq_placement.place` puts it, with ranges that nobody measured, and the
result is judged: by the cost model (see :mod:`.cost`), by :func:`csa_deploy.precision.why_slow.diagnose`, and by the
errata. The cost model knows no fusions, so it is asked twice. At best, all that can be INT8 gains and nothing is lost.
At worst, layers that public sources call slow gain nothing, and every reformat and every lost fusion costs its passes
over memory. Where both say the same, that is the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import onnx
import onnx_ir as ir

from csa_deploy.engine.device import cuda_state
from csa_deploy.graph.load import load_model
from csa_deploy.graph.names import named
from csa_deploy.graph.operators import QUANTIZERS, WEIGHTED
from csa_deploy.graph.shapes import inferred
from csa_deploy.graph.stats import node_macs
from csa_deploy.precision.cost import ORIN, elements, latency, node_costs, not_known
from csa_deploy.precision.qdq import insert_qdq
from csa_deploy.precision.qdq_placement import place, weighted
from csa_deploy.precision.why_slow import diagnose
from csa_deploy.profile.comparison import MINIMUM_EFFECT, compare_samples
from csa_deploy.records.errata import KnownProblem
from csa_deploy.records.precision import Layer
from csa_deploy.restricted.errata.finding import Question, known_problems
from csa_deploy.restricted.loading import load_graph
from csa_deploy.results import Stored
from csa_deploy.workspace import MANIFEST, Workspace

Verdict = Literal["worth it", "not worth it", "unknown"]
Kind = Literal["reformat", "fusion lost", "no INT8 implementation", "slow in INT8"]
REFORMAT_BYTES = 3  # of an element: FP16 is read, INT8 is written
NO_GPU = "no GPU; with one: `csa-deploy run --precision fp16,int8`"
WORTH = 1 + MINIMUM_EFFECT
_ISSUE = "https://github.com/NVIDIA/TensorRT/issues/"
_FUSED: Mapping[str, tuple[str, ...]] = {
    "LayerNorm": (f"{_ISSUE}4242 (8.6.10, Orin: INT8 7.5 ms, FP16 6 ms)", f"{_ISSUE}4180"),
    "GELU": (f"{_ISSUE}3127 (8.6.1)", f"{_ISSUE}4180"),
    "SiLU": (f"{_ISSUE}3385 (8.5.2: fused behind a plain convolution, not behind a depth-wise one)",),
}
_REACH = 8  # nodes that a norm written out has between its mean and its end
_NAMED = {"FastGelu": "GELU", "Gelu": "GELU", "HardSwish": "SiLU", "LayerNormalization": "LayerNorm", "Swish": "SiLU"}
_WRITTEN_OUT = {"Erf": "GELU", "Sqrt": "LayerNorm", "Tanh": "GELU"}
_VIEWED = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_BETWEEN = ("Add", "Cast", "Div", "Mul", "Pow", "Reshape", "Sqrt", "Sub", "Transpose")


@dataclass(frozen=True)
class Obstacle(Stored):
    """What INT8 costs at a node, or why it has none.

    Attributes:
        kind: of obstacle.
        what: in words.
        node: node of the graph, or the operator that makes the tensor.
        bytes: that have to be moved besides; None where a shape is not known, 0 where the obstacle is another.
        sources: where it is said; none where it follows from the graph.
    """

    kind: Kind
    what: str
    node: str
    bytes: int | None = 0
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speedup(Stored):
    """INT8 against FP16, timed on a GPU: medians in milliseconds, and whether the difference is shown."""

    derived: ClassVar[tuple[str, ...]] = ("statement",)
    fp16_ms: float
    int8_ms: float
    kept: bool

    @property
    def statement(self) -> str:
        """In words."""
        said = f"INT8 {self.int8_ms:.3f} ms, FP16 {self.fp16_ms:.3f} ms, {self.fp16_ms / self.int8_ms:.2f}x"
        return f"{said}: {'INT8 is kept' if self.kept else f'INT8 is not shown to be {WORTH:.2f}x as fast: use FP16'}"


@dataclass(frozen=True)
class Prospect(Stored):
    """What INT8 would bring.

    Attributes:
        device: whose peak figures the estimates take.
        tensorrt: version whose errata were asked.
        macs: multiply-accumulates of the graph where they are known.
        int8_macs: those of layers that can be INT8.
        int8_layers: how many of these multiply.
        refused: layers with weights that cannot, and why.
        obstacles: what it costs.
        at_best: FP16's estimated latency over INT8's; None where a cost is not known.
        at_worst: likewise.
        unknown: nodes whose cost is not known.
        measured: engines of the workspace, timed; None where there are none.
        reason: why none were; empty where they were.
    """

    derived: ClassVar[tuple[str, ...]] = ("verdict", "statement", "share", "reformat_bytes")
    device: str
    tensorrt: str
    macs: int
    int8_macs: int
    int8_layers: int
    refused: dict[str, str]
    obstacles: tuple[Obstacle, ...]
    at_best: float | None
    at_worst: float | None
    unknown: tuple[str, ...] = ()
    measured: Speedup | None = None
    reason: str = NO_GPU

    @property
    def share(self) -> float:
        """Share of the multiply-accumulates that can run in INT8."""
        return self.int8_macs / self.macs if self.macs else 0.0

    @property
    def reformat_bytes(self) -> int | None:
        """Bytes of all reformats; None where one is not known."""
        sizes = [item.bytes for item in self.obstacles if item.kind == "reformat"]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def by_obstacle(self) -> dict[tuple[Kind, str], list[Obstacle]]:
        """Obstacles that are alike; those that move the most first."""
        found: dict[tuple[Kind, str], list[Obstacle]] = {}
        for item in self.obstacles:
            found.setdefault((item.kind, item.what), []).append(item)
        return dict(sorted(found.items(), key=lambda pair: -sum(item.bytes or 0 for item in pair[1])))

    @property
    def verdict(self) -> Verdict:
        """What was timed decides; else the estimates, where both say the same."""
        if self.measured:
            return "worth it" if self.measured.kept else "not worth it"
        if not self.int8_layers:
            return "not worth it"
        if self.at_best is None or self.at_worst is None:
            return "unknown"
        return "worth it" if self.at_worst >= WORTH else "not worth it" if self.at_best < WORTH else "unknown"

    @property
    def statement(self) -> str:
        """In words."""
        if self.measured:
            return f"{self.verdict}: {self.measured.statement}"
        if not self.int8_layers:
            return f"{self.verdict}: nothing that multiplies can run in INT8"
        if self.at_best is None or self.at_worst is None:
            return f"{self.verdict}: the cost of {len(self.unknown)} nodes is not known, such as {self.unknown[0]}"
        between = f"{self.at_worst:.2f}x to {self.at_best:.2f}x"
        return f"{self.verdict}: estimated {between} as fast as FP16, {WORTH:.2f}x counts"


def prospect(model: onnx.ModelProto, tensorrt: str = "") -> Prospect:
    """Judge a floating-point graph; nothing is calibrated or written.

    Args:
        model: not changed; optimize it first, as ``quantize`` does.
        tensorrt: version whose errata count ('' every one).

    Raises:
        UsageError: its opset has no per-channel Q/DQ, or it is quantized already.
    """
    graph = inferred(model).graph
    work = {str(node.name): node_macs(node) or 0 for node in graph}
    total = sum(work.values())
    costs = node_costs(model)
    unknown = tuple(not_known(costs))
    if not any(isinstance(weighted(node), Layer) for node in graph if node.op_type in WEIGHTED):
        refused = {str(n.name): str(weighted(n)) for n in graph if n.op_type in WEIGHTED}
        return Prospect(ORIN.name, tensorrt, total, 0, 0, refused, (), None, None, unknown)
    placement = place(model)
    quantized = insert_qdq(model, placement, dict.fromkeys(placement.tensors, 1.0)).model
    added = {layer.name for layer in placement.layers}
    problems = _problems(model, quantized, added, tensorrt)
    barred = {name for problem in problems if _bars(problem) for name in problem.nodes if name in added}
    doubted = {name for problem in problems for name in problem.nodes if name in added}
    possible = frozenset(added - barred)
    obstacles = [*_of_errata(problems, added), *_of_tensors(inferred(quantized).graph)]
    fp16, best = latency(costs, frozenset()), latency(costs, possible)
    worst, lost = latency(costs, possible - doubted - _grouped(quantized)), _lost(obstacles)
    known = None not in (fp16, best, worst, lost)
    return Prospect(
        ORIN.name,
        tensorrt,
        total,
        sum(work[name] for name in possible),
        sum(layer.weight is not None and layer.name in possible for layer in placement.layers),
        dict(placement.refused),
        tuple(obstacles),
        fp16 / best if known and fp16 and best else None,
        fp16 / (worst + lost) if known and fp16 and worst and lost is not None else None,
        unknown,
    )


def prospect_of_file(path: Path, tensorrt: str = "") -> Prospect:
    """Of a graph in a file; engines of its workspace that were timed decide, see :func:`prospect`."""
    found = prospect(named(load_model(path, full_check=False)), tensorrt)
    root = path.resolve().parent.parent
    workspace = Workspace(root) if path.resolve().parent.name == "onnx" and (root / MANIFEST).is_file() else None
    latency_of = workspace.measured("profile").get("latency", {}) if workspace and "profile" in workspace.stages else {}
    series = [latency_of[label]["samples_ms"] for label in ("engine fp16", "engine int8") if label in latency_of]
    if len(series) == 2:
        return with_times(found, *series)
    no_gpu = not cuda_state().devices
    return replace(found, reason=NO_GPU if no_gpu else "`csa-deploy profile` timed no engines in FP16 and INT8")


def with_times(found: Prospect, fp16_ms: Sequence[float], int8_ms: Sequence[float]) -> Prospect:
    """The same with engines that were timed on a GPU: INT8 is kept where it is shown to be faster by 2 %.

    Args:
        found: by estimates.
        fp16_ms: latencies of the FP16 engine, in the order in which they were measured.
        int8_ms: of the INT8 engine.
    """
    ratio = compare_samples(fp16_ms, int8_ms)
    if ratio is None:
        return replace(found, reason="too few samples were timed; `csa-deploy profile --seconds 30` times more")
    return replace(found, measured=Speedup(ratio.a_ms, ratio.b_ms, ratio.outcome == "faster"), reason="")


def _problems(model: onnx.ModelProto, quantized: onnx.ModelProto, added: set[str], tensorrt: str) -> list[KnownProblem]:
    """Build failures and slow layers that are about INT8: those that the graph has only with Q/DQ."""
    question = Question(tensorrt, precisions=("int8",))
    plain = known_problems(load_graph(model), Question(tensorrt, precisions=("fp16",)))
    before = {problem.id for problem in plain.problems}
    return [
        problem
        for problem in known_problems(load_graph(quantized), question).problems
        if problem.id not in before and problem.symptom in ("build-failure", "slow") and added & set(problem.nodes)
    ]


def _bars(problem: KnownProblem) -> bool:
    return problem.symptom == "build-failure" and problem.state == "affected"


def _of_errata(problems: Sequence[KnownProblem], added: set[str]) -> Iterator[Obstacle]:
    for problem in problems:
        kind: Kind = "no INT8 implementation" if problem.symptom == "build-failure" else "slow in INT8"
        what = f"{problem.id}: {problem.title} ({problem.state})"
        for name in problem.nodes:
            if name in added:
                yield Obstacle(kind, what, name, 0, problem.sources)


def _grouped(quantized: onnx.ModelProto) -> set[str]:
    """Layers that tensor cores do not take."""
    return {f.node for f in diagnose(quantized).findings if f.hazard.startswith("grouped convolution")}


def _of_tensors(graph: ir.Graph) -> Iterator[Obstacle]:
    """Tensors that a floating-point operator makes and an INT8 layer reads."""
    for node in graph:
        value = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        maker = value.producer() if value is not None else None
        if value is None or maker is None or _writes_int8(maker):
            continue
        count = elements(value)
        size = None if count is None else REFORMAT_BYTES * count
        fused = _fused(maker)
        name = str(maker.name or maker.op_type)
        yield Obstacle("reformat", f"what {fused or maker.op_type} makes is quantized in a pass of its own", name, size)
        if fused:
            twice = None if count is None else 2 * 2 * count  # FP16 is written and read once more
            what = f"{fused} stands between layers in INT8 instead of fused with them"
            yield Obstacle("fusion lost", what, name, twice, _FUSED[fused])


def _writes_int8(maker: ir.Node) -> bool:
    """Whether a layer in INT8 makes it, through what is fused with the layer."""
    while maker.op_type in ("Add", "BatchNormalization", "Cast", "Clip", "Relu", *_VIEWED):
        before = [made for value in maker.inputs if value is not None and (made := value.producer()) is not None]
        layers = [node for node in before if node.op_type not in QUANTIZERS]
        if not layers:
            return any(node.op_type == "DequantizeLinear" for node in before)
        maker = layers[0]
    inputs = maker.inputs[: 2 if maker.op_type in WEIGHTED else 1]
    makers = [value.producer() for value in inputs if value is not None]
    return bool(makers) and all(made is not None and made.op_type == "DequantizeLinear" for made in makers)


def _fused(maker: ir.Node) -> str | None:
    """The activation or norm that a node ends, where TensorRT has one kernel for it in FP16."""
    if maker.op_type in _NAMED:
        return _NAMED[maker.op_type]
    if _is_silu(maker):
        return "SiLU"
    behind = _behind(maker)
    nearest = next((op for op in behind if op in _WRITTEN_OUT), "")
    return _WRITTEN_OUT.get(nearest) if nearest != "Sqrt" or "ReduceMean" in behind else None


def _is_silu(maker: ir.Node) -> bool:
    """``x * sigmoid(x)``."""
    if maker.op_type != "Mul":
        return False
    first, second = maker.inputs
    return any(
        b is not None and (made := b.producer()) is not None and made.op_type == "Sigmoid" and made.inputs[0] is a
        for a, b in ((first, second), (second, first))
    )


def _behind(node: ir.Node) -> list[str]:
    """Operators that a node rests on through arithmetic, the nearest first."""
    found, front = list[str](), [node]
    for _ in range(_REACH):
        values = [value for node in front if node.op_type in _BETWEEN for value in node.inputs if value is not None]
        front = list(dict.fromkeys(made for value in values if (made := value.producer()) is not None))
        found += [node.op_type for node in front]
    return found


def _lost(obstacles: Sequence[Obstacle]) -> float | None:
    """Seconds that moving the bytes takes; None where they are not known."""
    sizes = [item.bytes for item in obstacles]
    return None if None in sizes else sum(size for size in sizes if size is not None) / ORIN.bandwidth
