"""Runs the engines of several builds on the same input, where they can run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from csa_deploy.builders import Builder
from csa_deploy.engine.repeat import Ran, median_ms
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.trtexec.command import WARMUP_MS, TimingRequest

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.runners.base import Runner


def run_each(builder: Builder, results: Sequence[BuildResult], config: Config) -> tuple[list[Ran], str]:
    """Outputs and median latency of each engine, or the reason why there are none."""
    from csa_deploy.trtexec.engines import engine_runner, on_machine

    ran: list[Ran] = []
    with ExitStack() as stack:
        for result in results:
            record = replace(result, builder_option=config.builder_option)
            name = result.engine.name
            try:
                if builder.machine is None:
                    runner = engine_runner(result.engine, record, None, name=name)
                else:
                    runner = on_machine(
                        result.engine, record, nullcontext(builder.machine), name=name, tools=builder.machine
                    )
            except EnvironmentLacksError as error:
                return [], error.message
            ran.append(_run(stack.enter_context(runner), config))
    return ran, ""


def _run(runner: Runner, config: Config) -> Ran:
    from csa_deploy.runners.feeds import random_feeds
    from csa_deploy.trtexec.runner import TrtexecRunner

    feeds = random_feeds(runner.input_specs, config.seed)
    outputs = {name: np.array(value) for name, value in runner.run(feeds).items()}
    if isinstance(runner, TrtexecRunner):
        timing = TimingRequest(iterations=config.iterations, warmup_ms=WARMUP_MS)
        return Ran(outputs, median_ms(runner.measure(feeds, timing, layers=False).samples_ms))
    samples = []
    for _ in range(config.iterations):
        start = time.perf_counter_ns()
        runner.run(feeds)
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return Ran(outputs, median_ms(samples))
