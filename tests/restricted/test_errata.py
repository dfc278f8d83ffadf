"""Errata: packs, versions, the question, what is said, and what is repaired."""

from __future__ import annotations

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import errata_graphs as g
import onnx
import pytest

import csa_deploy as csa
from benchmarks.errata import blocks
from csa_deploy.config import make_config
from csa_deploy.errors import UsageError
from csa_deploy.graph.repair import REPAIRS
from csa_deploy.restricted.errata.asking import errata_failure, question_of
from csa_deploy.restricted.errata.finding import Question, known_problems, listed
from csa_deploy.restricted.errata.schema import all_errata, errata_packs, read_errata
from csa_deploy.restricted.errata.versions import Versions, compared
from csa_deploy.restricted.explain import explain
from csa_deploy.restricted.inspection import inspect
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.reporters.formats import FORMATS, render

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))
EVERY = ("fp32", "fp16", "int8")
WORD = "sampling.grid-opset-20"

# Of each network in the box and of onnx's own, what a reader of the sources would say of it in any version. None has
# attention by products, GridSample, ScatterND or the like; each is FP32, so a builder's fp16 flag does nothing in 11.
TRULY = {"precision.flag-ignored-11"}
# On DLA it is about the platform, not about the graph.
ON_DLA = {"dla.not-supported", "dla.rounding-ties", "dla.int8-accuracy"}


def ids(model: onnx.ModelProto | Path, question: Question, state: str = "affected") -> set[str]:
    return {p.id for p in known_problems(load_graph(model), question).problems if p.state == state}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * ("net" in p.stem or "inception" in p.stem), id=p.stem) for p in LIGHT],
)
def test_no_false_alarm_about_onnx_light_models(path: Path) -> None:
    assert ids(path, Question(precisions=EVERY)) == TRULY
    assert ids(path, Question(precisions=EVERY), "not ruled out") == set()
    assert ids(path, Question(dla=True, precisions=EVERY)) == TRULY | ON_DLA
    assert ids(path, Question("10.13.3", "drive-orin", precisions=EVERY)) == set()


def test_every_light_model_is_there() -> None:
    assert len(LIGHT) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["csa_digits", "csa_segmentation", "csa_detection", "convselfattn", "convselfattn_pad1"]
)
def test_no_false_alarm_about_networks_in_the_box(name: str) -> None:
    graph = csa.export(name).graph
    assert ids(graph, Question(precisions=EVERY)) == TRULY
    for version in ("8.6.11", "8.6.12", "10", "10.7", "10.10.10", "10.11", "10.16"):
        assert ids(graph, Question(version, precisions=EVERY)) == set()
    assert ids(graph, Question("11.1")) == TRULY


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [("10", "10.8", 0), ("10.8", "10.8.1", 0), ("8.6.11", "8.6.12", -1), ("10.10", "10.9", 1), ("11", "10.16", 1)],
)
def test_versions_compare_by_the_parts_that_both_have(one: str, other: str, said: int) -> None:
    assert compared(one, other) == said and compared(other, one) == -said


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (
            Versions(["10.11.0", "11.1.0"]),
            {"10.10": "?", "10.11": "!", "10.13": "!", "11.1": "!", "11.2": "?", "10": "!"},
        ),
        (
            Versions(["10.7"], fixed="10.8"),
            {"10.6": "?", "10.7": "!", "10.8": "-", "10.8.1": "-", "10": "!", "11": "-"},
        ),
        (Versions(["10.0"], fixed="11.2.1"), {"11.2.0": "!", "11.2": "!", "11.2.1": "-", "11.3": "-", "11": "!"}),
        (Versions(["10.11"], since="10.8"), {"10.7.9": "-", "10.8": "!", "10.11": "!", "10.12": "?"}),
        (Versions(["10.3"], right="8.6.1"), {"8.6.1": "-", "8.6.0": "-", "8.6.2": "?", "10.3.0": "!"}),
        (Versions([]), {"8.6": "!", "11.6": "!"}),
    ],
)
def test_state_of_a_version(versions: Versions, expected: dict[str, str]) -> None:
    """Affected, not ruled out, and not affected, on both sides of each bound."""
    said = {version: versions.state(version) for version in expected}
    signs = {
        version: "-" if state is None else state[0][0].replace("a", "!").replace("n", "?")
        for version, state in said.items()
    }
    assert signs == expected
    assert versions.state("") == ("affected", "")


def test_words_of_versions() -> None:
    assert Versions(["10.3"], right="8.6.1").words == "seen in 10.3; since unknown (8.6.1 was right); no fix known"
    assert Versions(["10.7"], since="10.7", fixed="10.8").words == "seen in 10.7; since 10.7; fixed in 10.8"


def test_segformer_from_the_second_sample_on() -> None:
    name = "attention.segformer-batch"
    for version in ("10.11", "10.11.0", "11.1"):
        assert name in ids(g.segformer(2), Question(version))
        assert name not in ids(g.segformer(1), Question(version))
        assert name in ids(g.segformer("N"), Question(version), "not ruled out")
    assert name in ids(g.segformer(2), Question("10.10.10"), "not ruled out")


@pytest.mark.parametrize(
    ("name", "model", "version", "outside", "precisions"),
    [
        ("attention.deformable", g.deformable(), "11.1", "10.7", ("fp32",)),
        (WORD, g.grid_sample("linear", 20), "10.13.3", "8.6.12", ("fp32",)),
        ("attention.split-scale", g.split_scale(), "10.7", "10.8", ("fp32",)),
        ("precision.flag-ignored-11", g.decomposed_norm(), "11.2", "10.16", ("fp16",)),
        ("precision.calibration-ignored", g.conv(16, 16), "10.3", "8.0", ("int8",)),
        ("attention.int8-vit-not-faster", g.quantized_attention(), "10.13", "", ("int8",)),
    ],
)
def test_named_issues(
    name: str, model: onnx.ModelProto, version: str, outside: str, precisions: tuple[str, ...]
) -> None:
    assert name in ids(model, Question(version, precisions=precisions))
    if outside:
        assert name not in ids(model, Question(outside, precisions=precisions))
    assert WORD in explain(WORD) and "it may have moved since" in explain(name)


def test_dla_rounding_is_about_int8_on_dla() -> None:
    model = g.conv(16, 16)
    assert "dla.rounding-ties" in ids(model, Question("8.6.12", "drive-orin", True, ("int8",)))
    assert "dla.rounding-ties" not in ids(model, Question("8.6.12", "drive-orin", False, ("int8",)))
    assert "dla.rounding-ties" not in ids(g.attention(), Question("8.6.12", "drive-orin", True, ("fp16",)))


def test_half_precision_counts_where_the_node_computes_in_it() -> None:
    """A typed graph that keeps its attention in FP32 has the workaround already."""
    half = g.model("""(float16[1, 4, 8] x) => (float16[1, 4, 8] y)
        { k = Transpose <perm = [0, 2, 1]> (x) s = MatMul(x, k) w = Softmax(s) y = MatMul(w, x) }""")
    kept = g.model("""(float16[1, 4, 8] h) => (float16[1, 4, 8] y) { x = Cast <to = 1> (h)
        k = Transpose <perm = [0, 2, 1]> (x) s = MatMul(x, k) w = Softmax(s)
        o = MatMul(w, x) y = Cast <to = 10> (o) }""")
    question = Question("10.16.1", "workstation")
    assert "attention.fused-blackwell-half" in ids(half, question)
    assert "attention.fused-blackwell-half" not in ids(kept, question)


def test_a_version_that_is_newer_or_older_than_the_packs() -> None:
    for version, word in (("11.6", "up to 11.4"), ("12.0", "up to 11.4"), ("8.2", "from 8.4 on")):
        (line,) = known_problems(load_graph(g.attention()), Question(version)).unknown
        assert f"nothing is known about TensorRT {version}" in line and word in line
    assert known_problems(load_graph(g.attention()), Question("11.4")).unknown == ()
    assert "11.6" in listed("11.6").unknown[0]
    assert listed("11.6").affected == () != listed("11.4").affected  # not even what names no version


def test_each_erratum_is_complete() -> None:
    assert len({erratum.id for _, erratum in all_errata()}) == len(list(all_errata())) >= 40
    for pack, erratum in all_errata():
        assert str(pack.read) == "2026-11-29"
        assert not erratum.repair or erratum.repair in REPAIRS
        assert erratum.severity != "high" or erratum.symptom != "slow"
        assert all(compared(version, pack.tensorrt[1]) <= 0 for version in erratum.seen)
        assert explain(erratum.id).startswith(erratum.id)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"@mode"', '"@moode"', "unknown fact '@moode'"),
        ('op = "GridSample"', 'op = "GridSample", extra = 1', "extra"),
        ('symptom = "wrong-result"', 'symptom = "bad"', "symptom"),
        ('id = "sampling.', 'id = "other.', "does not begin with 'sampling.'"),
        ("read = 2026", "read = ", "errata pack sampling.toml"),
        ("network = { dynamic = true }", "network = { moving = true }", "unknown fact 'moving'"),
        (
            'pattern = { op = "Resize", when = { "@antialias" = 1 } }',
            'pattern = "nobody"',
            "no pattern is named 'nobody'",
        ),
        ('pattern = { op = "Resize", when = { "@antialias" = 1 } }', "", "speaks of every network"),
    ],
)
def test_a_broken_pack_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    source = Path(csa.__file__).parent / "restricted" / "errata" / "packs" / "sampling.toml"
    text = source.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "sampling.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=r"errata pack sampling\.toml") as error:
        read_errata(tmp_path / "sampling.toml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Question("10")),
        ({"tensorrt": "10.13.3.9"}, Question("10.13.3")),
        ({"scope": ["drive-os-6"]}, Question("8.6.11")),
        ({"scope": ["drive-os-6"], "tensorrt": "8.6.13"}, Question("8.6.13")),
        ({"scope": ["drive-os-6", "trt-11"]}, Question("10")),
        ({"scope": ["dla-orin"]}, Question("8.6.11", dla=True)),
        ({"builder_option": ["dla-core=0"], "backend": "trtexec"}, Question("10", dla=True)),
        ({"precision": ["int8"]}, Question("10", precisions=("int8",))),
    ],
)
def test_question_of_a_configuration(settings: dict[str, object], expected: Question) -> None:
    assert question_of(make_config(settings)) == expected


def test_question_of_a_target(tmp_path: Path) -> None:
    target = tmp_path / "orin.yaml"
    target.write_text("host: orin.local\nplatform: drive-orin\ntensorrt: 8.6.12\n")
    settings = {"target": str(target), "builder_option": ["dla_core=1"], "tensorrt": "11"}
    assert question_of(make_config(settings)) == Question("8.6.12", "drive-orin", True)
    target.write_text("host: h.local\n")
    assert question_of(make_config({"target": str(target), "tensorrt": "10.9"})) == Question("10.9")


def test_severity_decides_only_where_it_is_asked(tmp_path: Path) -> None:
    report = known_problems(load_graph(g.segformer(2)), Question("10.11", precisions=("fp32",)))
    failure = errata_failure(report, "high", "net")
    assert failure is not None and failure.exit_code == 4 and "attention.segformer-batch" in str(failure)
    assert errata_failure(report, None, "net") is None
    only_low = known_problems(load_graph(g.decomposed_norm()), Question("11.2", precisions=("fp16",)))
    assert {p.severity for p in only_low.affected} == {"low"}
    assert errata_failure(only_low, "medium", "net") is None and errata_failure(only_low, "low", "net") is not None


def test_api_names_them_and_its_json_comes_back() -> None:
    report = csa.check(g.grid_sample("linear", 20), "drive-os-7", errata="10.13.3")
    assert report.errata is not None and [p.id for p in report.errata.affected] == [WORD]
    again = csa.CheckReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again.errata == report.errata and again.to_json() == report.to_json()
    assert csa.check(g.grid_sample("linear", 20), "drive-os-7").errata is None
    assert "errata" not in csa.check(g.grid_sample("linear", 20), "drive-os-7").to_json()
    with pytest.raises(UsageError, match="no TensorRT version"):
        csa.check(g.grid_sample("linear", 20), "drive-os-7", errata="ten")


def test_known_problem_is_repaired_and_gone(tmp_path: Path) -> None:
    from csa_deploy.restricted.errata.repairing import repair_known

    path = tmp_path / "up.onnx"
    onnx.save(g.conv_transpose("output_shape = [8, 8]"), path)
    question = Question("10.13.3")
    found = repair_known(path, ["drive-os-7"], question)
    assert found.model is not None and [step.rule for step in found.steps if step.kept] == ["transpose_pads"]
    name = "convolution.transpose-output-shape"
    assert found.before.errata is not None and name in {p.id for p in found.before.errata.affected}
    assert found.after.errata is not None and name not in {p.id for p in found.after.errata.problems}
    assert name not in ids(found.model, question)
    assert repair_known(path, ["drive-os-7"], None).model is None  # not asked: the scopes alone decide
    assert repair_known(path, ["drive-os-7"], Question("10.3.0", precisions=("fp32",))).model is None


def test_inspection_reads_the_graph_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import csa_deploy.restricted.inspection as inspection

    path, read = tmp_path / "net.onnx", []
    onnx.save(g.attention(), path)
    monkeypatch.setattr(inspection, "load_graph", lambda model: read.append(model) or load_graph(model))
    assert inspect(path, ["drive-os-6"], errata=Question("10.11")).errata is not None
    assert len(read) == 1


@pytest.mark.slow
def test_ten_thousand_nodes_in_below_two_seconds() -> None:
    large = load_graph(blocks(500))
    assert len(large.nodes) == 10_000
    start = time.process_time()  # of this process: the machine may be busy
    report = known_problems(large, Question(dla=True, precisions=EVERY))
    assert time.process_time() - start < 2.0
    assert {"attention.split-scale", "attention.identical-samples"} <= {p.id for p in report.affected}


def test_packs_are_read_once() -> None:
    assert errata_packs() is errata_packs()


@pytest.mark.parametrize(
    "form", [form for form in FORMATS if form != "model-explorer"]
)  # which has no room for reasons
def test_every_format_names_known_problems(form: str) -> None:
    model = g.segformer(2)
    data, plain = csa.check(model, "drive-os-6", errata="10.11"), csa.check(model, "drive-os-6")
    assert "attention.segformer-batch" in render(data, form) and "attention.segformer-batch" not in render(plain, form)
    if form == "sarif":
        (run,) = json.loads(render(data, form))["runs"]
        levels = {result["ruleId"]: result["level"] for result in run["results"]}
        assert levels["errata/attention.segformer-batch"] == "warning"
        assert levels["errata/attention.identical-samples"] == "note"
    if form == "junit":
        failing = [int(suite.get("failures")) for suite in ElementTree.fromstring(render(data, form))]
        assert failing[-1] == 0  # they inform
