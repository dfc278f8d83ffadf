"""Ctrl-C while an exporter runs ends the command, and never with another graph than was asked for."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
import torch

from csa_deploy.export import exporter
from csa_deploy.export.interrupts import interrupts_wait, pass_on_interrupt


@pytest.fixture(autouse=True)
def _default_handler() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_waits_and_the_second_does_not() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        reached.append("end")
    assert reached == ["end"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append("never")
    assert reached == ["end"]


def test_other_threads_and_handlers_are_left_alone() -> None:
    done = []

    def elsewhere() -> None:
        with interrupts_wait():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_wait():
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_in_an_error_of_the_library_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any, **__: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("the exporter failed") from error

    pass_on_interrupt(RuntimeError("nothing to do with it"))
    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(KeyboardInterrupt):
        exporter.export_module(torch.nn.ReLU(), {"x": torch.zeros(1, 3)}, ["y"])


def test_messages_of_the_exporter_lose_their_colours() -> None:
    assert exporter._one_line(RuntimeError("\x1b[96mfailed\x1b[0m\n\nmore")) == "RuntimeError: failed"
