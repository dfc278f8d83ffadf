"""The words that rule packs may use: TensorRT layer types, facts of a layer, dtypes, evidence tags.

Layer types carry the names of TensorRT's ``LayerType`` enum. A pack that uses another word is refused when it
loads, so that a typing error can never turn into a rule that silently never fires.
"""

from __future__ import annotations

_LAYER_TYPES = """
    ACTIVATION ASSERTION ATTENTION_INPUT ATTENTION_OUTPUT CAST CONCATENATION CONDITION CONDITIONAL_INPUT
    CONDITIONAL_OUTPUT CONSTANT CONVOLUTION CUMULATIVE DECONVOLUTION DEQUANTIZE DIST_COLLECTIVE DYNAMIC_QUANTIZE
    EINSUM ELEMENTWISE FILL FULLY_CONNECTED GATHER GRID_SAMPLE IDENTITY ITERATOR KVCACHE_UPDATE LOOP_OUTPUT LRN
    MATRIX_MULTIPLY MOE NMS NON_ZERO NORMALIZATION ONE_HOT PADDING PARAMETRIC_RELU PLUGIN PLUGIN_V2 PLUGIN_V3
    POOLING QUANTIZE RAGGED_SOFTMAX RECURRENCE REDUCE RESIZE REVERSE_SEQUENCE RNN_V2 ROTARY_EMBEDDING SCALE SCATTER
    SELECT SHAPE SHUFFLE SLICE SOFTMAX SQUEEZE TOPK TRIP_LIMIT UNARY UNSQUEEZE
"""
LAYER_TYPES = frozenset(_LAYER_TYPES.split())
"""Layer types of TensorRT 8.6 to 11."""

NETWORK = "NETWORK"
"""Pseudo layer that carries the facts of the whole network."""

UNMAPPED = "UNMAPPED"
"""Pseudo layer of an ONNX node (or a defect of the graph) that was not understood; its fact ``reason`` says why."""

PSEUDO_LAYERS = frozenset({NETWORK, UNMAPPED})

FACTS: dict[str, str] = {
    # of every layer
    "op": "ONNX operator that the layer came from ('' when built through the API)",
    "domain": "domain of that operator ('' is ai.onnx)",
    "in_dtype": "list: dtype of each input tensor of the layer",
    "out_dtype": "list: dtype of each output tensor",
    "in_rank": "list: rank of each input tensor",
    "out_rank": "list: rank of each output tensor",
    "in_shape": "list of lists: dimensions of each input tensor",
    "out_shape": "list of lists: dimensions of each output tensor",
    "in_const": "list: whether each input tensor is a build-time constant",
    "inputs": "number of input tensors",
    "outputs": "number of output tensors",
    "dynamic": "whether any dimension of an input or output is not fixed",
    "batch": "list: product of the dimensions before the last three, of each input and output that is no constant",
    "largest_side": "list: largest dimension behind those of the batch, of each input and output tensor",
    "non_finite": "whether a constant that shapes the layer holds NaN or infinity, or a scale that is not positive",
    # operation and attributes; names of kinds are those of TensorRT's enums (SUM, PROD, RELU, MAX, AVG, ...)
    "kind": "operation of Activation, ElementWise, Unary, Pooling, Reduce, TopK, Matrix, Fill, Scatter, Gather...",
    "spatial_rank": "spatial dimensions of a convolution, deconvolution or pooling window",
    "kernel": "list: window per spatial axis",
    "stride": "list: stride per spatial axis (Slice: step per axis)",
    "pre_padding": "list: padding before, per spatial axis",
    "post_padding": "list: padding after, per spatial axis",
    "dilation": "list: dilation per spatial axis",
    "extent": "list: reach of the dilated window per spatial axis, (kernel - 1) * dilation + 1",
    "padded": "list: input size with its padding, per spatial axis",
    "groups": "groups of a convolution",
    "output_maps": "output channels of a convolution",
    "weights_const": "whether kernel and bias are build-time constants",
    "weights_known": "whether they (of Q/DQ: what it reads) are known at build time, be it behind Q/DQ (from 11)",
    "count_include_pad": "whether average pooling counts the padding",
    "post_reach": "list: padding after plus what ceil_mode adds behind it, per spatial axis",
    "ceil_mode": "whether pooling rounds its output size up",
    "alpha": "alpha of an activation (clip: lower bound; leaky: slope)",
    "beta": "beta of an activation (clip: upper bound)",
    "power": "whether a Scale layer raises to a power other than 1",
    "axis": "axis, counted from the front",
    "axes": "list: axes, counted from the front",
    "keep_dims": "whether reduced axes stay with length 1",
    "axis_length": "length of the axis",
    "other_axes_max": "longest non-batch dimension other than the axis",
    "mode": "mode of Resize (NEAREST, LINEAR, CUBIC), Slice, Gather, GridSample",
    "coordinate": "coordinate transformation of Resize (HALF_PIXEL, ASYMMETRIC, ALIGN_CORNERS, ...)",
    "selector": "source of a single-pixel output of Resize (FORMULA, UPPER)",
    "nearest_mode": "rounding of a nearest Resize",
    "by": "how a Resize is told its size: SCALES (constant), SIZES (constant), DYNAMIC",
    "scales": "list: Resize scales",
    "scales_whole": "whether each of the Resize scales is a whole number",
    "sizes_agree": "whether the three size arithmetics and the declared output shape agree",
    "size_float64": "list: Resize output size, double arithmetic",
    "size_float32": "list: Resize output size, single-precision arithmetic",
    "size_mixed": "list: Resize output size, float32 scale times size in double",
    "antialias": "whether Resize filters when it shrinks",
    "exclude_outside": "whether Resize drops samples outside",
    "cubic_coeff": "coefficient of a cubic Resize",
    "permutation": "list: axis order of a Shuffle that transposes",
    "reshapes": "whether a Shuffle changes dimensions",
    "moves_batch": "whether axis 0 takes part in a Shuffle",
    "shape_const": "whether the new dimensions of a Shuffle (or the bounds of a Slice) are build-time constants",
    "indices_const": "whether the indices of Gather or Scatter are constants",
    "transpose": "list: operation of each MatrixMultiply input (NONE, TRANSPOSE, VECTOR)",
    "equation": "Einsum equation",
    "epsilon": "epsilon of a normalization",
    "k": "k of TopK",
    "to": "target dtype of a Cast",
    "block_size": "block size of a blocked (de)quantization",
    "granularity": "of Quantize/Dequantize: TENSOR, CHANNEL, BLOCK",
    "zero_point": "whether a (de)quantization has a zero point other than 0",
    "typed": "whether the graph states types of its own, FP16 or Q/DQ (of a layer from 11)",
    "in_scales": "list: INT8 scales of the tensors that the layer reads, each once, in a graph with Q/DQ (from 11)",
    "out_scales": "list: of those that it writes",
    "in_scales_agree": "whether the tensors that it reads have one INT8 scale, or none has any (from 11)",
    "scales_agree": "whether those that it writes have the same, too",
    "unscaled": "list: floating-point tensors of the layer without INT8 scale, in a graph with Q/DQ (from 11)",
    "plugin": "name of the plugin",
    "plugin_kind": "interface of the plugin (IPluginV2IOExt, IPluginV2DynamicExt, IPluginV3, '' unknown)",
    "buffer_fp16": "DLA convolution buffer banks needed in FP16 (weights + data)",
    "buffer_int8": "DLA convolution buffer banks needed in INT8 (weights + data)",
    "reason": "of UNMAPPED: why the node was not understood",
    "detail": "of UNMAPPED: what exactly",
    # of the network
    "opset": "version of the ai.onnx operator set",
    "opset_known": "whether the installed onnx package knows that version",
    "duplicate_names": "list: names that several nodes share",
    "input_dtype": "list: dtype of each network input",
    "output_dtype": "list: dtype of each network output",
    "input_shape": "list of lists: dimensions of each network input",
    "dynamic_inputs": "list: names of inputs with a dimension that is not fixed",
    "tensor_dtypes": "list: every dtype that an activation of the network has",
    "quantized": "whether the graph holds Quantize/Dequantize nodes",
    "layer_norms": "list: places of LayerNormalization that the exporter spread over several nodes",
    "local_functions": "number of model-local functions",
    "plugins": "list: names of plugins and custom operators",
    "loadables": "DLA subgraphs that the network is cut into",
    "max_batch": "largest batch of the network inputs",
    "layer_types": "list: every layer type in the network",
}
"""Facts that conditions may ask for, and what each means. Lists take the suffixes below."""

AGGREGATES = frozenset({"min", "max", "len", "prod", "last"})
"""List functions behind a fact name, as in ``kernel.max`` or ``in_shape.0.max``; a number picks an element."""

EVIDENCE = {
    "official-doc": "NVIDIA's documentation of this version says so",
    "header": "text of NVIDIA's header files",
    "release-notes": "NVIDIA's release notes",
    "parser-source": "follows from the source of NVIDIA's ONNX parser",
    "code-comment": "comment in published code that was run on the platform",
    "passes": "a published network with this construct passes the check on the platform",
    "sample": "NVIDIA's safety samples use it",
    "forum": "answer or log on NVIDIA's forum",
    "issue": "log in a public issue of NVIDIA's repository",
    "validator": "NVIDIA's validator answered so about this network",
    "validator-probe": "NVIDIA's validator answered so on a probing network of this project",
    "measured": "measured by this project on NVIDIA's builder",
    "third-party": "one text by a third party",
    "definition": "follows from the definition of the format or of the scope",
}
"""Evidence tags, strongest sources named by what they are; a rule carries exactly one."""
