"""What a limit of the validator could mean: candidate conditions, whose numbers and sets the probes decide.

The validator names the limit that a refused layer breaks (``LayerKernelLimit``). Each candidate here ties one or
several of these names on some layer types to a condition on facts. :mod:`derive` fits the open numbers and sets to
the evidence and refuses a candidate that any probe contradicts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WINDOWS = ("CONVOLUTION", "DECONVOLUTION")
PARTS = "several layers, each for a part of the channels, and a concatenation"
PAD_FIRST = "pad with a Pad node in front of the layer"
FITTING = {"pre_padding": {"lt": "$extent"}, "post_padding": {"lt": "$extent"}, "extent": {"le": "$padded"}}
LAST_TWO = "only the last two dimensions may change"


@dataclass(frozen=True)
class Candidate:
    """A hypothesis about one limit.

    Attributes:
        id: id of the rule that it becomes, behind the name of the layer.
        layers: layer types that it is about; one rule for each.
        limits: names under which the validator reports the violation.
        message: the rule's message; ``{limit}`` is the fitted number or set, other braces are facts.
        instead: what to write instead.
        upper: facts that have an upper bound, fitted to the probes.
        lower: facts that have a lower bound, fitted to the probes.
        one_of: fact that must be one of a set, fitted to the probes.
        when: a fixed condition that a refused layer fulfils.
        unless: a fixed condition that every accepted layer fulfils.
    """

    id: str
    layers: tuple[str, ...]
    limits: tuple[str, ...]
    message: str
    instead: str = ""
    upper: str = ""
    lower: str = ""
    one_of: str = ""
    when: dict[str, Any] = field(default_factory=dict)
    unless: dict[str, Any] = field(default_factory=dict)


REPAIRS = {"pooling.stride": "pool_stride_to_one, pool_to_chain", "pooling.window": "pool_to_chain"}
"""Names of the repairs that cure what a rule refuses, by the rule's id."""

CANDIDATES = (
    Candidate(
        "kernel",
        WINDOWS,
        ("LayerKernelLimit",),
        "kernel {kernel}: at most {limit}",
        "several layers with smaller kernels",
        upper="kernel",
    ),
    Candidate(
        "stride",
        (*WINDOWS, "POOLING"),
        ("LayerStrideLimit",),
        "stride {stride}: at most {limit}",
        "two layers with smaller strides after one another",
        upper="stride",
    ),
    Candidate(
        "dilation",
        WINDOWS,
        ("LayerDilationLimit",),
        "dilation {dilation}: at most {limit}",
        "a smaller dilation",
        upper="dilation",
    ),
    Candidate(
        "pre-padding",
        (*WINDOWS, "POOLING"),
        ("LayerPrePaddingLimit",),
        "padding {pre_padding} in front: at most {limit}",
        PAD_FIRST,
        upper="pre_padding",
    ),
    Candidate(
        "post-padding",
        (*WINDOWS, "POOLING"),
        ("LayerPostPaddingLimit",),
        "padding {post_padding} behind: at most {limit}",
        PAD_FIRST,
        upper="post_padding",
    ),
    Candidate(
        "groups",
        WINDOWS,
        ("LayerNbGroupsLimit",),
        "{groups} groups: at most {limit}",
        PARTS,
        upper="groups",
    ),
    Candidate(
        "output-maps",
        WINDOWS,
        ("LayerNbOutputMapsLimit",),
        "{output_maps} output channels: at most {limit}",
        PARTS,
        upper="output_maps",
    ),
    Candidate(
        "input-channels",
        WINDOWS,
        ("LayerNbInputChannelsLimit",),
        "input {in_shape}: at most {limit} channels",
        PARTS,
        upper="in_shape.0.1",
    ),
    Candidate(
        "reach",
        ("CONVOLUTION",),
        ("LayerEffectiveFilterSizeLimitExt",),
        "the dilated kernel {extent} must be larger than the padding {pre_padding}, {post_padding} and fit into the "
        "input with the padding that is written out, {padded}",
        PAD_FIRST,
        unless=FITTING,
    ),
    Candidate(
        "stride-over-kernel",
        ("DECONVOLUTION",),
        ("LayerDeconvStrideLimitExt",),
        "stride {stride} must not be larger than the kernel {kernel}",
        "a kernel as large as the stride, filled up with zeros",
        unless={"stride": {"le": "$kernel"}},
    ),
    Candidate(
        "pre-padding-under-window",
        ("POOLING",),
        ("LayerPrePaddingLimitExt",),
        "padding {pre_padding} in front must be smaller than the window {kernel}",
        PAD_FIRST,
        unless={"pre_padding": {"lt": "$kernel"}},
    ),
    Candidate(
        "post-padding-under-window",
        ("POOLING",),
        ("LayerPostPaddingLimitExt",),
        "padding {post_padding} behind must be smaller than the window {kernel}",
        PAD_FIRST,
        unless={"post_padding": {"lt": "$kernel"}},
    ),
    Candidate(
        "window",
        ("POOLING",),
        ("LayerWindowLimit",),
        "window {kernel}: at most {limit}",
        "two poolings after one another, or a Reduce layer (ReduceMean, ReduceMax) for the whole map",
        upper="kernel",
    ),
    Candidate(
        "kind",
        ("POOLING",),
        ("LayerOpModesLimit",),
        "pooling {kind}: only {limit}",
        "maximum or average pooling",
        one_of="kind",
    ),
    Candidate(
        "kind",
        ("FILL",),
        ("LayerOpModesLimit",),
        "fill {kind}: only {limit}",
        "make the values outside the network",
        one_of="kind",
    ),
    Candidate(
        "mode",
        ("RESIZE", "GRID_SAMPLE"),
        ("LayerOpModesLimit",),
        "mode {mode}: only {limit}",
        "linear or nearest",
        one_of="mode",
    ),
    Candidate(
        "rank",
        ("RESIZE",),
        ("LayerDataRankLimit",),
        "input {in_shape}: rank at least {limit}",
        "reshape before and behind",
        lower="in_rank.0",
    ),
    Candidate(
        "output-rank",
        ("RESIZE",),
        ("LayerOutputRankLimit",),
        "output {out_shape}: rank at least {limit}",
        "reshape before and behind",
        lower="out_rank.0",
    ),
    Candidate(
        "last-two",
        ("RESIZE",),
        ("LayerResizeInputOutputLimitExt",),
        "{in_shape} -> {out_shape}: " + LAST_TWO,
        "reshape so that the dimensions to resize come last, or resize in two steps",
        when={
            "any": [
                {"in_rank.0": {"gt": rank}, "not": {f"in_shape.0.{rank - 2}": f"$out_shape.0.{rank - 2}"}}
                for rank in range(2, 8)
            ]
        },
    ),
    Candidate(
        "stride", ("SLICE",), ("LayerStrideLimit",), "stride {stride}: at least {limit}", "slice twice", lower="stride"
    ),
    Candidate(
        "scale-power",
        ("SCALE",),
        ("LayerScalePowerLimitExt",),
        "a power other than 1",
        "an element-wise power",
        unless={"power": False},
    ),
    # The ONNX parser gives k as a tensor, where the limit does not look.
    Candidate("k", ("TOPK",), ("LayerKLimit",), "k is 0", "k of at least 1", when={"k": 0, "op": ""}),
    Candidate(
        "axis",
        ("QUANTIZE", "DEQUANTIZE"),
        ("LayerAxesLimitExt",),
        "axis {axis} is not an axis of the input {in_shape}",
        "through TensorRT's API: set the axis, per tensor too (the ONNX parser does)",
        # A per-tensor scale in ONNX has no axis of its own; the parser then sets axis 0, which passes.
        when={
            "axis": {"known": True},
            "any": [{"axis": {"lt": 0}}, {"in_rank.0": {"ge": 1}, "axis": {"ge": "$in_rank.0"}}],
        },
    ),
    Candidate(
        "axis",
        ("ONE_HOT",),
        ("LayerAxesLimitExt",),
        "axis {axis}: counted from the front only",
        "axis counted from the front",
        lower="axis",
    ),
    Candidate(
        "axis",
        ("SCATTER",),
        ("LayerAxesLimitExt",),
        "axis {axis} of an input {in_shape}",
        "axis counted from the front",
        when={"any": [{"axis": {"known": True, "lt": 0}}, {"in_rank.0": 0}]},
    ),
    Candidate(
        "rank",
        ("SCATTER",),
        ("LayerDataRankLimit",),
        "input {in_shape}: rank at least {limit}",
        "reshape before and behind",
        lower="in_rank.0",
    ),
    Candidate(
        "index-rank",
        ("SCATTER",),
        ("LayerIndicesRankLimit",),
        "indices {in_shape}: rank at least {limit}",
        "reshape the indices",
        lower="in_rank.1",
    ),
    Candidate(
        "scale-rank",
        ("QUANTIZE", "DEQUANTIZE"),
        ("LayerScaleRankLimit",),
        "scale of rank {in_rank}: blocked scales are refused",
        "one scale per tensor or per channel",
        upper="in_rank.1",
    ),
    Candidate(
        "pair",
        ("CAST",),
        ("LayerCastLimitExt",),
        "cast {in_dtype} -> {out_dtype}: unsigned 8-bit integers become float16 only",
        "cast to float16 first",
        when={"in_dtype.0": "uint8"},
        unless={"out_dtype.0": "float16"},
    ),
)

ATTENTION = "MatrixMultiply, Softmax and MatrixMultiply: export the attention decomposed"
INSTEAD = {
    "ATTENTION_INPUT": ATTENTION,
    "ATTENTION_OUTPUT": ATTENTION,
    "KVCACHE_UPDATE": "a cache outside the network, as inputs and outputs",
    "LRN": "BatchNormalization, and trained so; or a square, an average pooling over the channels, a power, a quotient",
    "PADDING": "a Slice with padding (ONNX Pad), or padding inside the convolution that follows",
    "RAGGED_SOFTMAX": "Softmax over sequences of one length",
    "REVERSE_SEQUENCE": "Slice with step -1 for sequences of one length",
    "ROTARY_EMBEDDING": "its products and sums, as ElementWise layers",
}
"""What to write instead of layer types that are refused whatever their attributes."""

DTYPE_LIMITS = {
    "input-type": ("LayerInputTypesLimit", "in_dtype"),
    "output-type": ("LayerOutputTypesLimit", "out_dtype"),
    "scale-type": ("LayerScaleTypesLimit", "in_dtype"),
}
"""Rule id -> name of the limit, and the fact whose positions it is about; the sets are fitted."""

IMPLIED = ("LayerWeightsTypeLimit", "LayerBiasWeightsTypeLimit")
"""Limits that never stand alone: weights and bias have the dtype of the input."""
