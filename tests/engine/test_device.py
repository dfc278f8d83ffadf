from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csa_deploy.engine import device


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    device.cuda_state.cache_clear()
    yield
    device.cuda_state.cache_clear()


def test_devices_are_read_from_the_driver(make_driver: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", str(make_driver(count=2)))
    state = device.cuda_state()
    assert state.driver == "13.2"
    assert [(d.index, d.name, d.compute_capability, d.memory_bytes) for d in state.devices] == [
        (0, "Orin", "8.7", 2**35),
        (1, "Orin", "8.7", 2**35),
    ]
    assert state.reason == ""
    assert json.loads(json.dumps(state.to_json()))["devices"][0]["name"] == "Orin"


@pytest.mark.parametrize(
    ("init", "reason"),
    [(100, "the driver does not answer (cuInit: CUDA_ERROR_NO_DEVICE)"), (0, "the driver is there and lists none")],
)
def test_a_driver_without_device_says_why(
    make_driver: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, init: int, reason: str
) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", str(make_driver(init=init, count=0)))
    assert device.cuda_state().reason == f"no CUDA device: {reason}"
    assert device.cuda_state().devices == ()


def test_no_driver_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", "libnot-there.so.1")
    assert "libnot-there.so.1 is not on this machine" in device.cuda_state().reason


def test_a_library_that_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", "libc.so.6")
    assert "does not answer" in device.cuda_state().reason
