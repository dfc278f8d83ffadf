"""The command as a user meets it: start-up, help, output channels, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csa_deploy import __version__
from csa_deploy.cli.main import calm_threads
from csa_deploy.data.named import NAMED

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "tensorrt", "tensorrt_rtx", "numpy", "pydantic", "polygraphy")


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import csa_deploy; dir(csa_deploy); csa_deploy.__all__",
        "import csa_deploy.cli.main",
        "from csa_deploy.cli.main import app\ntry: app(['--help'])\nexcept SystemExit as end: assert end.code == 0",
        "from csa_deploy.cli.main import app\ntry: app(['--version'])\nexcept SystemExit as end: assert end.code == 0",
    ],
)
def test_start_up_loads_nothing_heavy(code: str) -> None:
    loaded = modules_after(code)
    assert "csa_deploy" in loaded
    assert not loaded & set(HEAVY)


def test_nothing_imports_the_command_line_or_the_models() -> None:
    import csa_deploy

    package = Path(csa_deploy.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "import csa_models" not in text and "from csa_models" not in text, path
        if package / "cli" not in path.parents and path.name != "__main__.py":
            assert "csa_deploy.cli" not in text, path


def test_version(csa: Any, tmp_path: Path) -> None:
    done = csa(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"csa-deploy {__version__}\n", "")


def test_help_names_the_exit_codes_and_verbs(csa: Any, tmp_path: Path) -> None:
    done = csa(tmp_path, "--help", env={"COLUMNS": "160"})
    assert done.returncode == 0 and done.stderr == ""
    for word in ("run", "export", "check", "optimize", "build", "verify", "profile", "report", "models", "doctor"):
        assert word in done.stdout
    assert "6 accuracy gate" in " ".join(done.stdout.split()) and "130 interrupted" in " ".join(done.stdout.split())


def test_without_arguments_it_shows_the_help_and_no_error(csa: Any, tmp_path: Path) -> None:
    done = csa(tmp_path)
    assert done.returncode == 2 and "Usage" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(csa: Any, tmp_path: Path, shell: str) -> None:
    done = csa(tmp_path, "--show-completion", shell)
    if done.returncode:  # typer asks the parent process for its shell when shellingham is there
        done = csa(tmp_path, env={"_CSA_DEPLOY_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0 and "csa-deploy" in done.stdout and "_CSA_DEPLOY_COMPLETE" in done.stdout


def test_completion_offers_verbs(csa: Any, tmp_path: Path) -> None:
    environment = {"_CSA_DEPLOY_COMPLETE": "complete_bash", "COMP_WORDS": "csa-deploy ex", "COMP_CWORD": "1"}
    assert csa(tmp_path, env=environment).stdout.split() == ["export"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nosuch",), 2, "No such command 'nosuch'"),
        (("run", "--sampels", "3"), 2, "No such option: --sampels"),
        (("run", "--samples", "many"), 2, "--samples"),
        (("run", "--samples", "0"), 2, "samples: Input should be greater than or equal to 1"),
        (("run", "a", "b"), 2, "unexpected extra argument"),
        (("run", "csa_digit"), 2, "did you mean 'csa_digits' or"),
        (("run", "missing.onnx"), 2, "missing.onnx: no such file"),
        (("run", "missing.yaml"), 2, "missing.yaml: no such configuration file"),
        (("run", "nets.py"), 2, "which factory in this file?"),
        (("export", "nets.py:tny"), 2, "did you mean 'tiny'?"),
        (("run", "key.yaml"), 2, "key.yaml: unknown key 'sampels', did you mean 'samples'"),
        (("run", "type.yaml"), 2, "samples: Input should be a valid integer"),
        (("run", "list.yaml"), 2, "list.yaml: a configuration is a mapping"),
        (("run", "tiny.onnx", "--budget", "fp16.snr=3"), 2, "budget: unknown metric 'snr', did you mean 'snr_db'"),
        (("run", "tiny.onnx", "--budget", "int4.snr_db=3"), 2, "budget: unknown precision 'int4'"),
        (("run", "tiny.onnx", "--size", "big"), 2, "size: a size is one side"),
        (("export", "tiny.onnx", "--size", "32"), 2, "--size: axis 2 of input 'x' is 16, not 32"),
        (("export", "tiny.onnx", "--batch", "4"), 2, "--batch: axis 0 of input 'x' is 1, not 4"),
        (("export", "tiny.onnx", "--checkpoint", "x.npz"), 2, "--checkpoint is not for an ONNX file"),
        (("export", "nets.py:tiny", "--mean", "0.5"), 2, "--mean is not for a module"),
        (("export", "nets.py:tiny", "--input-shape", "1x3x8x8"), 2, "--input-shape is not for a module"),
        (("export", "tiny.onnx", "--sweep", "1:2:3"), 2, "an ONNX file has one input size"),
        (("export", "--sweep", "1-2"), 2, "is not START:STOP:STEP"),
        (("verify", "tiny.onnx"), 2, "verify needs data and the network has none of its own"),
        (("check", "tiny.onnx", "--scope", "drive-os"), 2, "no rule pack for scope 'drive-os'"),
        (("check", "tiny.onnx", "--format", "pdf"), 2, "pdf"),
        (("report",), 2, "nothing was made here yet"),
        (("report", "tiny.onnx"), 2, "deploy/tiny: nothing was made here yet"),
        (("report", "--format", "pdf"), 2, "--format pdf: no such format"),
    ],
)
def test_wrong_usage_is_one_line(lab: Path, csa: Any, arguments: tuple[str, ...], code: int, said: str) -> None:
    (lab / "key.yaml").write_text("network: tiny.onnx\nsampels: 3\n")
    (lab / "type.yaml").write_text("network: tiny.onnx\nsamples: [1]\n")
    (lab / "list.yaml").write_text("- network\n")
    done = csa(lab, *arguments)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("csa-deploy: ")]
    assert len(lines) == 1 and said in lines[0] and "| fix: " in lines[0], done.stderr
    assert "Traceback" not in done.stderr and not list(lab.rglob("manifest.json"))


def test_json_log_is_json_only(digits: Any) -> None:
    events = [json.loads(line) for done in digits.said for line in done.stderr.splitlines()]
    started = [e["stage"] for e in events if e["event"] == "started"]
    finished = {e["stage"]: e for e in events if e["event"] == "finished"}
    assert started[0] == "export" and started[-1] == "report"
    assert set(started) == set(finished) and {e["state"] for e in finished.values()} <= {"done", "kept"}
    steps = [(e["done"], e["total"]) for e in events if e["event"] == "progress" and e["stage"] == "verify"]
    assert steps[-1] == (20, 20)


def test_an_error_in_the_json_log_is_json(lab: Path, csa: Any) -> None:
    (lab / "broken.npz").write_bytes(b"no archive")
    done = csa(lab, "run", "tiny.onnx", "--data", "broken.npz", "--log-json")
    assert done.returncode == 2
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events][-2:] == ["finished", "error"] and events[-2]["state"] == "failed"
    assert events[-1]["exit_code"] == 2 and events[-1]["time"] >= events[-2]["time"]
    assert "broken.npz: not a readable .npz" in events[-1]["message"] and events[-1]["fix"]
    done = csa(lab, "run", "tiny.onnx", "--data", "nowhere", "--log-json")  # known before the first stage
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["error"]


def test_the_last_event_of_a_gate_is_its_verdict(lab: Path, csa: Any) -> None:
    done = csa(lab, "profile", "tiny.onnx", "--iterations", 40, "--limit", "fp32.weights_mib=1e-9", "--log-json")
    assert done.returncode == 7
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events][-2:] == ["verdict", "error"] and events[-1]["exit_code"] == 7
    (gate,) = events[-2]["gates"]
    assert (events[-2]["state"], gate["state"], gate["name"]) == ("fail", "fail", "latency and memory")


def test_quiet_says_nothing_and_works(lab: Path, csa: Any) -> None:
    done = csa(lab, "profile", "tiny.onnx", "--iterations", 2, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (lab / "deploy/tiny/records/profile.json").is_file()
    broken = csa(lab, "profile", "missing.onnx", "-q")
    assert broken.returncode == 2 and broken.stderr.count("\n") == 1


def test_flags_and_yaml_mean_the_same(lab: Path, csa: Any) -> None:
    (lab / "c.yaml").write_text(
        "network: tiny.onnx\nworkspace: w1\nprecision: [fp16]\nkeep-fp32: conv\nfp16_io: true\nseed: 3\n"
        "budget: {fp16: {snr_db: 20}}\ndata: x.npz\nthreads: 1\nsamples: 4\ncompute_capability: '8.6'\n"
        "scope: [drive-os-6]\n"
    )
    stages = ("verify", "--data", "x.npz", "--samples", 4, "--budget", "fp16.snr_db=20", "--seed", 3, "--threads", 1)
    flags = csa(lab, stages[0], "tiny.onnx", *stages[1:], "--fp16", "--keep-fp32", "conv", "--fp16-io", "-w", "w2")
    assert flags.returncode == 0, flags.stderr
    file = csa(lab, "verify", "c.yaml")
    assert file.returncode == 0, file.stderr
    first, second = (json.loads((lab / w / "manifest.json").read_text()) for w in ("w1", "w2"))
    assert first["stages"] == second["stages"] and first["config"] == second["config"]


def test_verbs_in_a_row_go_on_with_the_same_settings(lab: Path, csa: Any) -> None:
    assert csa(lab, "export", "nets.py:tiny", "--size", "16", "--batch", 2, "--exporter", "torchscript").returncode == 0
    done = csa(lab, "optimize", "nets.py:tiny")
    assert done.returncode == 0
    assert "remembered: --size 16x16 --batch 2 --exporter torchscript\n" in done.stderr
    assert "= export " in done.stderr
    record = json.loads((lab / "deploy/nets-tiny/records/export.json").read_text())
    assert record["inputs"][0]["shape"] == [2, 3, 16, 16] and record["exporter"] == "torchscript"


def test_report_to_standard_output_is_the_file(digits: Any, csa: Any) -> None:
    done = csa(digits.cwd, "report", "csa_digits", "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((digits.root / "report.json").read_text())


def test_a_closed_pipe_is_no_crash(digits: Any) -> None:
    command = Path(sys.executable).with_name("csa-deploy")
    done = subprocess.run(
        f"{command} report csa_digits --format json | head -c 10",
        shell=True,
        cwd=digits.cwd,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert len(done.stdout) == 10 and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_closed_pipe_keeps_the_exit_code(lab: Path) -> None:
    """``check | head`` ended with 1, which is an internal error; the verdict is what counts."""
    import onnx
    from onnx import parser

    nodes = " ".join(f"x{i + 1} = GlobalAveragePool(x{i})" for i in range(60))
    graph = f"g (float[1,3,8,8] x0) => (float[1,3,1,1] x60) {{ {nodes} }}"
    onnx.save(parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>{graph}'), lab / "many.onnx")
    command = f"{Path(sys.executable).with_name('csa-deploy')} check many.onnx --scope drive-os-6 --scope trt-11"
    for form in ("text", "json", "junit"):
        script = f"set -o pipefail; {command} --format {form} | true"  # gone before the first byte
        done = subprocess.run(["bash", "-c", script], cwd=lab, capture_output=True, text=True)
        assert done.returncode == 4, done.stderr
        assert "internal error" not in done.stderr and "BrokenPipe" not in done.stderr


def test_models(csa: Any, tmp_path: Path) -> None:
    done = csa(tmp_path, "models", "--json")
    networks = {n["name"]: n for n in json.loads(done.stdout)["networks"]}
    assert networks["convselfattn"]["parameters"] == 27_638_836
    assert networks["convselfattn"]["macs"] == 4_069_200_384
    assert networks["csa_digits"]["input"] == [1, 32, 32] and "trained on" in networks["csa_digits"]["weights"]
    assert json.loads(done.stdout)["data_sets"] == sorted(NAMED), "what the help of --data points to"


def test_a_missing_builder_is_exit_3_with_the_install_line(lab: Path, csa: Any) -> None:
    pytest.importorskip("onnxruntime")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        done = csa(lab, "build", "tiny.onnx", "--backend", "tensorrt")
        assert done.returncode == 3 and "pip install" in done.stderr.splitlines()[-1]
    else:
        pytest.skip("TensorRT is installed")


def test_a_rejected_operation_is_exit_4(lab: Path, csa: Any) -> None:
    import onnx
    from onnx import parser

    header = '<ir_version: 8, opset_import: ["": 17]>'
    graph = "g (float[1,3,8,8] x) => (float[1,3,1,1] y) { y = GlobalAveragePool(x) }"
    onnx.save(parser.parse_model(header + graph), lab / "pool.onnx")
    done = csa(lab, "check", "pool.onnx", "--scope", "drive-os-6")
    assert done.returncode == 4 and done.stderr.splitlines()[-1].startswith("csa-deploy: error: ")


def test_idle_threads_wait_briefly_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    for given in ({}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}):
        monkeypatch.setattr(os, "environ", dict(given))
        calm_threads()
        assert os.environ == (given or ours)
