"""Device code on a real device, without TensorRT: copies, events, CUDA graphs and memory are what the timer expects."""

from __future__ import annotations

import numpy as np
import pytest

from csa_deploy.profile.nvml import read
from csa_deploy.runners.device.timing import DeviceTimer

GIB = 2**30
ARRAYS = {"x": np.ones((1, 1024), np.float32)}, {"y": np.zeros((1, 1024), np.float32)}


def test_what_goes_in_comes_out(device):
    array = np.arange(1000, dtype=np.float32)
    sent, back = device.pinned(array), device.pinned(np.zeros_like(array))
    buffer, stream = device.allocate(array.nbytes), device.stream()
    start, end = device.event(), device.event()
    device.record(start, stream)
    device.to_device(buffer, sent, stream)
    device.to_host(back, buffer, stream)
    device.record(end, stream)
    device.synchronize(stream)
    assert np.array_equal(array, back)
    assert device.elapsed_ms(start, end) > 0
    device.free(buffer)


def test_free_memory_falls_by_what_is_taken(device):
    before = device.free_bytes()
    buffer = device.allocate(GIB // 4)
    taken = before - device.free_bytes()
    device.free(buffer)
    assert taken == pytest.approx(GIB // 4, rel=0.1)
    assert device.free_bytes() == pytest.approx(before, abs=GIB // 16)


def memset(device, size):
    runtime = pytest.importorskip("cuda.bindings.runtime")
    buffer = device.allocate(size)
    return buffer, lambda stream: runtime.cudaMemsetAsync(buffer, 0, size, stream)


def test_events_time_the_work_launched_and_through_a_graph(device, work):
    """Filling four times as much takes longer, and a graph of it takes about as long as its launches."""
    medians = {}
    for size in (GIB // 4, GIB):
        buffer, put = memset(device, size)
        with DeviceTimer(device, work(put), *ARRAYS) as timer:
            assert timer.no_graph == ""
            timer.time(5)
            medians[size] = [np.median([s.compute for s in timer.time(20, graph=graph)]) for graph in (False, True)]
            assert all(span.copy_in > 0 and span.copy_out > 0 for span in timer.time(3))
        device.free(buffer)
    small, large = medians.values()
    assert large[0] > 2 * small[0]
    assert large[1] == pytest.approx(large[0], rel=0.3)
    assert large[0] > 1e3 * GIB / 20e12  # no memory writes 20 TB per second


def test_work_that_no_graph_takes_is_timed_by_its_launches(device, work):
    """Allocating is forbidden in a capture; the stream works on afterwards."""
    runtime = pytest.importorskip("cuda.bindings.runtime")

    def put(stream):
        error, address = runtime.cudaMalloc(2**20)
        if int(error) == 0:
            runtime.cudaFree(address)

    with DeviceTimer(device, work(put), *ARRAYS) as timer:
        assert "fails" in timer.no_graph or "failed" in timer.no_graph
        assert len(timer.time(3)) == 3
        assert np.array_equal(timer.outputs["y"].shape, (1, 1024))


def test_nvml_reads_the_device():
    reading = read()
    assert reading.reason == ""
    assert reading.values["gpu temperature [C]"] > 0
    assert reading.values["gpu throttle reasons"]
