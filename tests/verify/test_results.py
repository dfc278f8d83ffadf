"""Results are stored once and judged again: the same verdict without running anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.stages import verify as verify
from csa_deploy.verify.judging import judge_results, one_class, wanted_samples
from csa_deploy.verify.results import CandidateColumns, OutputColumns, Results, read_results
from csa_deploy.workspace import Workspace


def make_results(count: int = 400, wrong: int = 0, total: int | None = None, labels: bool = True) -> Results:
    draw = np.random.default_rng(0)
    want = draw.standard_normal((count, 10)).astype("f4")
    got = want + 1e-4 * draw.standard_normal((count, 10)).astype("f4")
    got[:wrong] = -got[:wrong]
    truth = want.argmax(axis=1)
    ids = [f"s{i}" for i in range(count)]
    metrics = OutputMetrics("y")
    metrics.update(want, got, ids, truth if labels else None)
    columns = CandidateColumns("fp16", "fp16", (OutputColumns("y", metrics.classes, metrics.columns),))
    meta = {"total": total or count, "trained": True}
    return Results(tuple(ids), truth if labels else None, (columns,), meta)


def bounds(**given: float) -> Any:
    return lambda precision: {**make_config({}).bounds(precision), **given}


def test_stored_results_are_judged_alike(tmp_path: Path) -> None:
    results = make_results(800)
    path = tmp_path / "r.npz"
    path.write_bytes(results.to_bytes())
    assert results.to_bytes() == path.read_bytes()
    first, again = judge_results(results, bounds()), judge_results(read_results(path), bounds())
    assert json.dumps(first.to_json()) == json.dumps(again.to_json())
    assert first.verdict == "pass" and first.failure(strict=True) is None


def test_few_samples_are_undecided_and_strict_fails() -> None:
    judgement = judge_results(make_results(50), bounds())
    assert judgement.verdict == "undecided" and judgement.failure(strict=False) is None
    failure = judgement.failure(strict=True)
    assert isinstance(failure, AccuracyGateError) and "top1_agreement" in failure.message
    assert "at least 368 samples" in failure.message


def test_a_note_says_how_many_samples_would_do_and_what_training_has_to_do_with_it() -> None:
    results = make_results(50)
    judgement = judge_results(results, bounds())
    (agreement,) = [note for note in judgement.notes if "top1_agreement" in note]
    assert agreement.startswith("fp16: top1_agreement of 'y' at least 99.00 % is undecided: the samples only show ")
    assert wanted_samples(judgement.candidates) == 553  # for the drop in accuracy; 368 for the agreement
    untrained = replace(results, meta={**results.meta, "trained": False})
    assert not any("tied" in note for note in judgement.notes)
    assert any("nearly tied" in note for note in judge_results(untrained, bounds()).notes)


def test_a_broken_bound_fails_also_where_few_samples_are() -> None:
    judgement = judge_results(make_results(50, wrong=5), bounds())
    assert judgement.verdict == "fail"
    failure = judgement.failure(strict=False)
    assert failure is not None and "(worst sample s" in failure.message


@pytest.mark.shows("MEA-30")
def test_what_is_partial_never_passes() -> None:
    judgement = judge_results(make_results(800, total=1000), bounds())
    assert judgement.verdict == "undecided" and "partial: 800 of 1000 samples" in judgement.notes
    failure = judgement.failure(strict=True)
    assert failure is not None and "partial" in failure.message


@pytest.mark.shows("MEA-30", "ERR-25")
def test_a_bound_that_was_asked_for_counts_without_labels() -> None:
    without = make_results(800, labels=False)
    assert judge_results(without, bounds()).verdict == "pass"
    assert judge_results(without, bounds(top1=0.9), lambda precision: ("top1",)).verdict == "undecided"


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r.npz"
    if content is None:
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="not the results of a comparison"):
        read_results(path)
    with pytest.raises(UsageError, match="no such file"):
        read_results(tmp_path / "none.npz")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", schema_version=np.asarray(99))
    with pytest.raises(UsageError, match="schema version 99"):
        read_results(tmp_path / "r.npz")


def test_ctrl_c_keeps_what_was_compared(lab: Path) -> None:
    config = make_config({"network": str(lab / "tiny.onnx"), "data": str(lab / "x.npz"), "threads": 1})
    context = Context(config, load_source(config.network), Workspace(lab / "w"))

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with context.workspace.locked(), context.workspace.scratch("verify") as scratch:
        run_stages(["precision"], context)
        context.scratch, context.progress = scratch, interrupt
        with pytest.raises(KeyboardInterrupt):
            verify.run(context)
        partial = read_results(lab / "w" / verify.PARTIAL)
        assert partial.ids == ("0", "1", "2", "3") and partial.partial == "partial: 4 of 6 samples"
        context.progress = lambda done, total: None
        verify.run(context)
        assert not (lab / "w" / verify.PARTIAL).exists()


def test_progress_goes_on_while_errors_are_explained(lab: Path) -> None:
    given = {"network": str(lab / "tiny.onnx"), "data": str(lab / "x.npz"), "threads": 1, "localize": True}
    context = Context(make_config(given), load_source(given["network"]), Workspace(lab / "w"))
    seen: list[tuple[int, int]] = []
    with context.workspace.locked(), context.workspace.scratch("verify") as scratch:
        run_stages(["precision"], context)
        context.scratch, context.progress = scratch, lambda done, total: seen.append((done, total))
        verify.run(context)
    assert seen[:6] == [(n, 6) for n in range(1, 7)] and seen[-1] == (14, 14)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_verbs(lab: Path, csa: Any) -> None:
    """verify, judge and evaluate as a user types them."""
    assert csa(lab, "verify", "tiny.onnx", "--data", "x.npz", "-w", "w").returncode == 0
    strict = csa(lab, "verify", "tiny.onnx", "--data", "x.npz", "-w", "w", "--strict")
    assert strict.returncode == 6 and "is undecided" in strict.stderr
    assert csa(lab, "judge", "w").returncode == 0
    judged = csa(lab, "judge", "w", "--budget", "fp16.snr_db=200", "--json")
    assert judged.returncode == 6 and "snr_db of 'y'" in judged.stderr
    assert json.loads(judged.stdout)["verdict"] == "fail"
    assert csa(lab, "judge", "nowhere.npz").returncode == 2
    shown = {}
    for graph in ("tiny.onnx", "w/onnx/tiny.optimized.onnx"):
        done = csa(lab, "evaluate", graph, "--data", "x.npz", "--json")
        assert done.returncode == 0, done.stderr
        shown[graph] = json.loads(done.stdout)
    assert shown["tiny.onnx"]["hits"] == shown["w/onnx/tiny.optimized.onnx"]["hits"]
    assert shown["tiny.onnx"]["samples"] == 6
    x = np.load(lab / "x.npz")["x"]
    np.savez(lab / "plain.npz", x=x)
    refused = csa(lab, "evaluate", "tiny.onnx", "--data", "plain.npz")
    assert refused.returncode == 2 and "no labels" in refused.stderr


def test_one_class_is_noted() -> None:
    assert one_class(np.zeros(3, int)) == ["all samples are of one class, so accuracy says nothing about the others"]
    assert one_class(np.arange(3)) == one_class(np.zeros(1, int)) == one_class(None) == []
