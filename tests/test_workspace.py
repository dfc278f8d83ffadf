"""What counts as current, and that nothing half-written ever does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.records.report import ReportRecord
from csa_deploy.workspace import StageOutput, Workspace, dump_json, key_of, sha256_of, write_atomic


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    return tmp_path / "w"


def commit(root: Path, content: str = "a", key: str = "k", name: str = "export", **more: object) -> Workspace:
    workspace = Workspace(root)
    with workspace.locked(), workspace.scratch(name) as scratch:
        (scratch / "a.onnx").write_text(content)
        (scratch / "a.log").write_text("log")
        output = StageOutput(
            ReportRecord(summary=content),
            {"seconds": 1.0},
            artifacts={"onnx/a.onnx": scratch / "a.onnx"},
            unhashed={"onnx/a.log": scratch / "a.log"},
            **more,  # type: ignore[arg-type]
        )
        workspace.commit(name, key, output)
    return workspace


@pytest.mark.shows("MEA-41", "ERR-35")
def test_a_stage_is_current_until_something_changes(root: Path) -> None:
    commit(root)
    workspace = Workspace(root)
    assert workspace.is_current("export", "k")
    assert not workspace.is_current("export", "other key") and not workspace.is_current("build", "k")
    assert workspace.record("export") == {"schema_version": 1, "summary": "a"} and workspace.measured("export") == {
        "seconds": 1.0
    }
    assert workspace.hash_of("onnx/a.onnx") == sha256_of(root / "onnx/a.onnx")


@pytest.mark.parametrize("path", ["onnx/a.onnx", "records/export.json"])
@pytest.mark.shows("MEA-41", "ERR-35")
def test_other_bytes_are_not_current(root: Path, path: str) -> None:
    commit(root)
    (root / path).write_text("{}")
    assert not Workspace(root).is_current("export", "k")


@pytest.mark.parametrize("path", ["onnx/a.onnx", "onnx/a.log", "records/export.json", "measurements/export.json"])
def test_a_missing_file_is_not_current(root: Path, path: str) -> None:
    commit(root)
    (root / path).unlink()
    assert not Workspace(root).is_current("export", "k")


def test_what_may_differ_between_runs_may_be_edited(root: Path) -> None:
    commit(root)
    (root / "onnx/a.log").write_text("another log")
    assert Workspace(root).is_current("export", "k")


def test_a_failed_gate_is_kept_but_not_current(root: Path) -> None:
    commit(root, failure=AccuracyGateError("too far"))
    workspace = Workspace(root)
    assert workspace.record("export")["summary"] == "a" and not workspace.is_current("export", "k")


def test_files_that_are_not_made_any_more_go(root: Path) -> None:
    commit(root)
    workspace = Workspace(root)
    with workspace.locked():
        workspace.commit("export", "k2", StageOutput(ReportRecord(summary="none")))
    assert not (root / "onnx/a.onnx").exists() and not (root / "onnx/a.log").exists()
    assert list(Workspace(root).stages["export"].artifacts) == ["records/export.json"]


def test_the_weights_of_a_large_graph_come_along(root: Path) -> None:
    """They lie in a file beside it, which no stage names: it is kept, hashed, and goes with the graph."""
    workspace = Workspace(root)
    with workspace.locked(), workspace.scratch("export") as scratch:
        (scratch / "a.onnx").write_text("graph")
        (scratch / "a.onnx.data").write_text("weights")
        record = ReportRecord(summary="")
        workspace.commit("export", "k", StageOutput(record, artifacts={"onnx/a.onnx": scratch / "a.onnx"}))
    assert (root / "onnx/a.onnx.data").read_text() == "weights"
    assert workspace.is_current("export", "k")
    (root / "onnx/a.onnx.data").write_text("other")
    assert not workspace.is_current("export", "k")
    commit(root)
    assert not (root / "onnx/a.onnx.data").exists()


def test_forget_takes_out_of_the_manifest_only(root: Path) -> None:
    workspace = commit(root)
    workspace.forget(["export", "never there"])
    assert "export" not in Workspace(root).stages and (root / "onnx/a.onnx").exists()


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first, second = commit(tmp_path / "one").root, commit(tmp_path / "two").root
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_scratch_is_empty_and_goes(root: Path) -> None:
    workspace = Workspace(root)
    with workspace.locked():
        with workspace.scratch("export") as scratch:
            (scratch / "half").write_text("x")
        with workspace.scratch("export") as scratch:
            assert list(scratch.iterdir()) == []
    assert not (root / ".scratch").exists()


def test_a_run_that_makes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Workspace(tmp_path / "deploy/net").locked():
        raise RuntimeError("refused")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with Workspace(tmp_path / "mine").locked():
        pass
    assert (tmp_path / "mine").is_dir()


def test_what_a_killed_run_left_is_cleared(root: Path) -> None:
    commit(root)
    (root / ".scratch/build").mkdir(parents=True)
    (root / ".scratch/build/half.engine").write_text("x")
    (root / "onnx/.a.onnx.123.tmp").write_text("x")
    with Workspace(root).locked():
        assert not (root / ".scratch").exists() and not (root / "onnx/.a.onnx.123.tmp").exists()
    assert Workspace(root).is_current("export", "k")


def test_one_process_at_a_time(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from csa_deploy.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).locked(): print('in', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "in\n"
    try:
        with pytest.raises(UsageError, match="another csa-deploy is at work"), Workspace(root).locked():
            pass
    finally:
        holder.kill()
        holder.wait()
    with Workspace(root).locked():  # the lock of a killed process holds nobody
        pass


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"schema_version": 1}', '{"schema_version": 1, "config": {}}']
)
def test_a_manifest_that_cannot_be_read(root: Path, content: str) -> None:
    root.mkdir()
    (root / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match="not a readable manifest") as caught:
        Workspace(root)
    assert caught.value.fix == f"delete {root} and run again"


def test_a_manifest_of_another_version(root: Path) -> None:
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps({"schema_version": 99, "config": {}, "stages": {}}))
    with pytest.raises(UsageError, match="schema version 99"):
        Workspace(root)


def test_a_record_that_cannot_be_read_names_its_file(root: Path) -> None:
    workspace = commit(root)
    (root / "records/export.json").write_text("{")
    with pytest.raises(UsageError, match=r"records/export\.json: cannot be read"):
        workspace.record("export")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 3)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and path.read_text() == "old"


def test_json_has_no_nan() -> None:
    data = {"b": float("nan"), "a": [float("inf"), (-float("inf"), 1.5)], 3: None}
    assert json.loads(dump_json(data)) == {"3": None, "a": ["inf", ["-inf", 1.5]], "b": "nan"}


def test_keys_do_not_depend_on_order() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1}) != key_of({"a": 1, "b": [2, 1]})
