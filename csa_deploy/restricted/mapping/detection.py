"""Operators of detectors: sampling at positions, regions, and suppression."""

from __future__ import annotations

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, importer


@importer("GridSample")
def _grid_sample(net: Recorder) -> None:
    if net.required(0).rank not in (None, 4):
        net.refuse_from_10(f"an input of rank {net.required(0).rank}; GridSample layers have rank 4")
    kinds = [net.dtype(net.required(index)) for index in range(2)]
    if kinds[0] != kinds[1]:
        net.refuse_from_10(f"input and grid of different types, {kinds[0]} and {kinds[1]}")
    mode = {"bilinear": "LINEAR", "linear": "LINEAR", "nearest": "NEAREST", "bicubic": "CUBIC", "cubic": "CUBIC"}
    net.add("GRID_SAMPLE", [net.tensor(0), net.tensor(1)], net.out, mode=mode.get(net.attr("mode", "bilinear")))


@importer("NonMaxSuppression")
def _nms(net: Recorder) -> None:
    values = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    boxes, scores = values[0], values[1]
    turned = Value("", scores.dtype, None if scores.shape is None else tuple(scores.shape[i] for i in (0, 2, 1)))
    net.add("NMS", [boxes, net.shuffle(scores, turned, [0, 2, 1]), *values[2:]], net.out)


@importer("RoiAlign")
def _roi_align(net: Recorder) -> None:
    inputs = [net.tensor(index) for index in range(3)]
    recent = net.version >= (10,)
    facts = {"plugin": "ROIAlign_TRT", "plugin_kind": "IPluginV3" if recent else "IPluginV2DynamicExt"}
    net.add("PLUGIN_V3" if recent else "PLUGIN_V2", inputs, net.out, **facts)


@importer("DeformConv", since=(10,))
def _deform_conv(net: Recorder) -> None:
    inputs = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    net.add("PLUGIN_V2", inputs, net.out, plugin="ModulatedDeformConv2d", plugin_kind="IPluginV2DynamicExt")
