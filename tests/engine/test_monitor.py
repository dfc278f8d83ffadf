from __future__ import annotations

from csa_deploy.engine.monitor import PhaseProgress


def test_nested_phases_make_one_growing_fraction() -> None:
    seen: list[tuple[int, int]] = []
    progress = PhaseProgress(lambda done, total: seen.append((done, total)))
    progress.start("build", None, 2)
    progress.start("optimize", "build", 4)
    progress.step("optimize", 0)
    progress.step("optimize", 1)
    progress.finish("optimize")
    progress.step("build", 0)
    progress.start("optimize", "build", 2)
    progress.step("optimize", 0)
    progress.step("build", 1)
    progress.finish("build")
    assert seen == [(125, 1000), (250, 1000), (500, 1000), (750, 1000), (1000, 1000)]


def test_a_phase_that_restarts_never_goes_back() -> None:
    seen: list[int] = []
    progress = PhaseProgress(lambda done, total: seen.append(done))
    for _ in range(2):
        progress.start("build", None, 4)
        progress.step("build", 1)
    progress.start("empty", "build", 0)
    progress.step("empty", 0)
    assert seen == sorted(set(seen))
    assert seen[-1] <= 1000
