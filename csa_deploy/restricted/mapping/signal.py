"""Signal processing: short-time Fourier transform and its windows, which the parser composes of ordinary layers."""

from __future__ import annotations

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer

_COSINES = {"HannWindow": 0, "HammingWindow": 1, "BlackmanWindow": 2}
"""Cosines that a window adds up; a Hann window is the square of one sine."""


@importer(*_COSINES, since=(10,))
def _window(net: Recorder) -> None:
    if net.dtype(net.out) != "float32":
        raise UnmappableError("not-imported", f"a window of {net.dtype(net.out)}; the parser makes float32 only")
    size = net.tensor(0)
    shape = net.out.shape
    line = Value("", "float32", shape)
    net.add("FILL", [net.reshape(size, (1,))], line, kind="LINSPACE")
    length = size
    if not net.attr("periodic", 1):
        length = net.elementwise("SUB", size, net.cast(net.scalar("int32", 0), net.dtype(size)))
    angle = line
    for _ in range(max(_COSINES[net.node.op], 1)):
        scaled = net.elementwise("PROD", net.scalar("float32", 1), line, line)
        angle = net.elementwise("DIV", scaled, net.reshape(net.cast(length, "float32"), (1,)), line)
        wave = net.unary("SIN" if net.node.op == "HannWindow" else "COS", angle, line)
        angle = net.elementwise("PROD", net.scalar("float32", 1), wave, line)
    if _COSINES[net.node.op]:
        angle = net.elementwise("SUB", net.scalar("float32", 1), angle, line)
    net.elementwise("SUM" if net.node.op == "BlackmanWindow" else "PROD", angle, line, net.out)


@importer("STFT", since=(10,))
def _stft(net: Recorder) -> None:
    """Two convolutions over the signal, one with the cosines and one with the sines of the windows."""
    signal, step, length = net.required(0), net.ints(1, ""), net.ints(3, "")
    window = net.node.input(2)
    if signal.shape is None or None in signal.shape or net.out.shape is None or len(net.out.shape) != 4:
        raise UnmappableError("unknown-shape", "the shape of its signal is not known")
    if len(signal.shape) == 3 and signal.shape[2] != 1:
        raise UnmappableError("not-imported", "the parser takes real signals only")
    if step is None or (length is None and (window is None or window.shape is None)):
        raise UnmappableError("not-imported", "step and length of its frames are not constant")
    frame = length[0] if length is not None else window.shape[0] if window is not None and window.shape else None
    batch, samples = signal.shape[0], signal.shape[1]
    _, frames, bins, _ = net.out.shape
    source = net.as_tensor(signal)
    if source.rank == 3:
        source = net.squeeze(source, Value("", source.dtype, (batch, samples)))
    source = net.unsqueeze(source, (batch, 1, 1, samples))
    facts = {
        "spatial_rank": 2,
        "kernel": [1, frame],
        "stride": [1, step[0]],
        "dilation": [1, 1],
        "pre_padding": [0, 0],
        "post_padding": [0, 0],
        "extent": [1, frame],
        "padded": [1, samples],
        "groups": 1,
        "output_maps": bins,
        "weights_const": True,
        "buffer_fp16": None,
        "buffer_int8": None,
    }
    part = Value("", source.dtype, (batch, bins, 1, frames))
    parts = [net.add("CONVOLUTION", [source], part, **facts) for _ in range(2)]
    joined = net.add("CONCATENATION", parts, Value("", source.dtype, (batch, bins, 2, frames)), axis=2)
    net.shuffle(joined, net.out, [0, 3, 1, 2])
