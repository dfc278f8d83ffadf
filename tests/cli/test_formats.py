"""``--format json`` of every verb: one object on standard output, of a success as of a failure."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.cli.answer import VERB_FORMATS, formats
from csa_deploy.cli.main import app

NET, DATA, QUICK = "tiny.onnx", ("--data", "x.npz"), ("--threads", 1)
GRAPHS = "deploy/tiny/onnx/tiny"

# In the order in which a workspace comes about: arguments, exit codes that are no failure here, keys of the object.
WORKING: list[tuple[str, tuple[object, ...], tuple[int, ...], set[str]]] = [
    ("export", (NET,), (0,), {"network", "stages", "records", "verdict"}),
    ("check", (NET, "--scope", "drive-os-6"), (0, 4), {"scopes", "verdict"}),
    ("check", ("--explain", "drive-os-6/reduce"), (0,), {"rule", "text"}),
    ("optimize", (NET,), (0,), {"records"}),
    ("quantize", (NET, "--fp16", *DATA, *QUICK), (0, 6), {"records", "rows"}),
    ("build", (NET, "--dry-run", "--backend", "trtexec", "--tensorrt", "10"), (0, 3), set()),
    ("verify", (NET, "--fp16", *DATA, *QUICK), (0, 6), {"records", "rows", "not_measured"}),
    ("judge", (), (0, 6), set()),
    ("judge", ("deploy/tiny",), (0, 6), {"candidates", "verdict"}),
    ("evaluate", (f"{GRAPHS}.onnx", *DATA, *QUICK), (0,), {"top1", "samples", "trained"}),
    ("profile", (NET, "--iterations", 2, *QUICK), (0,), {"measurements"}),
    ("report", (NET,), (0,), {"verdict", "history"}),
    ("compare", ("deploy/tiny", "deploy/tiny"), (0,), {"a", "b", "accuracy"}),
    ("diff", (f"{GRAPHS}.optimized.onnx", f"{GRAPHS}.fp16.onnx"), (0,), {"modules"}),
    ("prove", (NET, f"{GRAPHS}.optimized.onnx", *DATA), (0,), {"verdict", "samples", "since"}),
    ("inspect", (NET,), (0,), {"kind", "statistics"}),
    ("bundle", (NET, "-o", "net.tar", "--despite-failure"), (0,), {"path", "sha256", "verdict"}),
    ("verify-bundle", ("net.tar",), (0,), {"verdict", "gates", "not_included"}),
    ("gate", ("policy.yaml", "--workspace", "deploy/tiny"), (0, 8), {"requirements", "verdict"}),
    ("matrix", (NET, *DATA, *QUICK, "--tensorrt", "10.10", "--iterations", 2), (0,), {"cells"}),
    ("fleet", ("fleet.yaml",), (0,), {"networks", "folders"}),
    ("watch", ("deploy/tiny",), (0,), {"stages", "running"}),
    ("new", ("project",), (0,), {"folder", "files"}),
    ("rules", (), (0,), {"packs"}),
    ("rules", ("drive-os-6",), (0,), {"rules"}),
    ("errata", ("--tensorrt", "10.10.10"), (0,), {"problems", "unknown", "tensorrt"}),
    ("errata", ("--explain", "attention.segformer-batch"), (0,), {"id", "text"}),
    ("run", (NET, "--fp32", *DATA, *QUICK, "--iterations", 2, "--backend", "trtexec"), (0, 3, 6), {"stages"}),
    ("matrix", (NET, "--fp32", *DATA, *QUICK, "--tensorrt", "8.6,10.10"), (0,), {"upgrades", "cells"}),
    ("train", ("--dry-run", "--images", 5000), (0, 3), {"images", "schedule"}),
]
SLOW: list[tuple[str, tuple[object, ...], tuple[int, ...], set[str]]] = [
    ("models", (), (0,), {"networks"}),
    ("doctor", (), (0,), {"probes"}),
    ("kit", ("-o", "kit"), (0,), {"folder", "files", "tests"}),
]


def verbs() -> set[str]:
    return {str(command.name) for command in app.registered_commands}


def one_object(text: str) -> dict[str, Any]:
    found = json.loads(text)  # fails on two objects, and on anything beside the one
    assert isinstance(found, dict) and isinstance(found["schema_version"], int)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_tiny: Any) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    onnx.save(make_tiny(), folder / NET)
    inputs = np.random.RandomState(5).standard_normal((6, 3, 16, 16)).astype("f4")
    np.savez(folder / "x.npz", x=inputs, labels=np.arange(6))
    (folder / "fleet.yaml").write_text(f"networks: [{NET}]\ntensorrt: ['10.10']\ndata: x.npz\ncluster: local:1\n")
    (folder / "policy.yaml").write_text("schema_version: 1\nname: any\n")
    return folder


def test_the_tables_have_every_verb() -> None:
    assert {verb for verb, *_ in (*WORKING, *SLOW)} == verbs()
    assert set(VERB_FORMATS) <= verbs()


@pytest.mark.parametrize(
    ("verb", "words", "codes", "keys"), WORKING, ids=[f"{i}-{row[0]}" for i, row in enumerate(WORKING)]
)
def test_a_result_is_one_object(
    folder: Path, typed: Any, verb: str, words: tuple[object, ...], codes: tuple[int, ...], keys: set[str]
) -> None:
    if verb == "judge" and not words:
        shutil.rmtree(folder / "deploy/convselfattn", ignore_errors=True)
        codes = (2,)  # nothing was verified of the default network
    done = typed(folder, verb, *words, "--format", "json")
    assert done.code in codes, done.err
    found = one_object(done.out)
    assert ("error" in found) == (done.code != 0)
    if done.code:
        assert found["error"]["exit_code"] == done.code and found["error"]["message"] in " ".join(done.err.split())
    if done.code in (0, 4, 6, 8):
        assert keys <= set(found)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "words", "codes", "keys"), SLOW, ids=[row[0] for row in SLOW])
def test_a_result_about_this_machine_is_one_object(
    folder: Path, typed: Any, verb: str, words: tuple[object, ...], codes: tuple[int, ...], keys: set[str]
) -> None:
    done = typed(folder, verb, *words, "--json")
    assert done.code in codes and keys <= set(one_object(done.out))


FAILING = dict.fromkeys(("export", "check", "optimize", "quantize", "build", "verify", "run"), ("missing.onnx",))
FAILING |= dict.fromkeys(("profile", "report", "evaluate", "bundle", "inspect", "train"), ("missing.onnx",))
FAILING |= dict.fromkeys(("compare", "diff"), ("missing", "missing")) | {"prove": ("missing.onnx", "missing.onnx")}
FAILING["new"] = (NET,)
FAILING["fleet"] = ("missing.yaml",)
FAILING["matrix"] = ("missing.onnx", "--tensorrt", "10.10")
FAILING |= dict.fromkeys(("judge", "verify-bundle", "watch", "rules", "gate", "kit"), ("missing",))


def test_the_failures_have_every_verb_that_takes_an_argument() -> None:
    assert set(FAILING) | {"models", "doctor", "errata", "kit"} == verbs()


@pytest.mark.parametrize("verb", sorted(FAILING))
def test_a_failure_is_one_object_too(folder: Path, typed: Any, verb: str) -> None:
    done = typed(folder, verb, *FAILING[verb], "--json")
    error = one_object(done.out)["error"]
    assert done.code == error["exit_code"] == 2 and set(error) == {"message", "fix", "exit_code"}
    assert done.err.count("\n") == 1 and error["message"] in done.err


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_a_command_line_that_cannot_be_read_is_one_object_too(folder: Path, typed: Any, verb: str) -> None:
    for form in (("--json",), ("--format", "json"), ("--format=json",)):
        done = typed(folder, verb, "--nosuch", *form)
        assert done.code == 2 and "--nosuch" in one_object(done.out)["error"]["message"]
    assert typed(folder, verb, "--nosuch").out == ""
    wrong = typed(folder, verb, *FAILING.get(verb, ()), "--format", "pdf")
    assert wrong.code == 2 and wrong.out == "" and f"use one of {', '.join(formats(verb))}" in wrong.err


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_the_help_lists_the_forms(folder: Path, typed: Any, verb: str) -> None:
    said = re.sub(r"\s+", " ", typed(folder, verb, "--help").out)
    assert f"The result's format: {', '.join(formats(verb))}." in said and "Short for --format json." in said


def test_a_form_that_was_asked_for_twice(folder: Path, typed: Any) -> None:
    done = typed(folder, "compare", "a", "b", "--json", "--format", "markdown")
    assert done.code == 2 and "exclude each other" in one_object(done.out)["error"]["message"]
