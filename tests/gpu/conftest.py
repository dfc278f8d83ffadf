"""What the GPU tests share. They are skipped, by reason, where there is no CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.runners.device.base import Device, open_device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent != Path(__file__).parent:
            continue
        item.add_marker(pytest.mark.gpu)
        if not cuda_state().devices:
            item.add_marker(pytest.mark.skipif(True, reason=cuda_state().reason), append=False)  # the first reason


@pytest.fixture
def device() -> Iterator[Device]:
    """The first CUDA device, through the bindings that are here."""
    try:
        opened = open_device()
    except EnvironmentLacksError as error:
        pytest.skip(error.message)
    yield opened
    opened.close()


class Work:
    """Stands for TensorRT's context: its computation is whatever it is given, put into the stream that it is given."""

    def __init__(self, put: Callable[[int], object]) -> None:
        self._put = put

    def set_tensor_address(self, name: str, memory: int) -> bool:
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._put(stream_handle)
        return True


@pytest.fixture(scope="session")
def work() -> type[Work]:
    return Work
