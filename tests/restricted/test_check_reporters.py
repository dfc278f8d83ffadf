import json
from xml.etree import ElementTree

import pytest
from restricted_networks import MAP, model, node, single, value

from csa_deploy.errors import UsageError
from csa_deploy.records.check import Inspected
from csa_deploy.restricted.check import check
from csa_deploy.restricted.explain import explain, list_packs
from csa_deploy.restricted.reporters.formats import FORMATS, render
from csa_deploy.restricted.schema import load_pack, scopes


def network():
    """One denied node with a module path, one unknown, one allowed."""
    pool = node("GlobalAveragePool", ["a"], ["b"], name="pool")
    pool.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'head', 'mean']")
    nodes = [node("Relu", ["x"], ["a"], name="relu"), pool, node("Softmax", ["b"], ["y"], name="soft")]
    return model(nodes)


def judged(model, *asked, **more) -> Inspected:
    """As a reader of the stored report has it."""
    return Inspected.from_json(json.loads(json.dumps(check(model, *asked, **more).to_json())))


@pytest.fixture(scope="module")
def data():
    return judged(network(), ["drive-os-6", "dla-orin"], name="net.onnx")


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_is_deterministic_and_names_verdict_and_level(data, form):
    text = render(data, form)
    assert text == render(Inspected.from_json(json.loads(json.dumps(data.to_json()))), form)
    assert text.endswith("\n") or form == "html"
    for word in ("denied", "static", "drive-os-6", "dla-orin"):
        assert word in text


def test_an_unknown_format_is_refused():
    with pytest.raises(UsageError, match="yaml"):
        render(Inspected(model="", scopes=()), "yaml")


def test_text_groups_findings_and_says_what_to_do():
    nodes = [node("GlobalAveragePool", ["x"], [f"y{index}"], name=f"pool{index}") for index in range(5)]
    text = render(judged(model([*nodes, node("Relu", ["y0"], ["y"])]), ["drive-os-6"]), "text")
    assert text.count("GlobalAveragePool becomes a Reduce layer") == 1
    assert "x5" in text
    assert "pool0, pool1, pool2 and 2 more" in text
    assert "instead: " in text
    assert "repair: global_pool_to_pool, reduce_to_layers (--fix)" in text
    assert "source: " in text
    assert "not done: validator" in text


def test_text_begins_with_all_verdicts(data):
    lines = render(data, "text").splitlines()
    assert lines[0].split() == ["scope", "verdict", "evidence", "denied", "unknown", "repairable"]
    assert lines[1].split() == ["drive-os-6", "denied", "static", "1", "1", "1"]
    assert lines[2].split() == ["dla-orin", "denied", "static", "1", "0", "1"]
    assert lines[3] == "" and lines[4].startswith("drive-os-6: denied")
    for line, scope in zip(lines[1:], data.scopes, strict=False):
        counts = scope.counts
        assert line.split()[3:5] == [str(counts["denied"]), str(counts["unknown"])]


def test_a_cast_of_an_input_is_explained_under_dla():
    cast = node("Cast", ["x"], ["h"], name="cast", to=10)
    network = model([cast, node("Relu", ["h"], ["y"], name="relu")], outputs=[value("y", MAP, 10)])
    for scope in ("dla-orin", "dla-xavier"):
        found = [finding for finding in check(network, [scope]).scopes[0].findings if finding.rule == "dla.cast"]
        assert len(found) == 1 and found[0].verdict == "denied"
        assert "float32" in found[0].message and "FP32 inputs" in found[0].message and "--fp16-io" in found[0].instead


def test_json_holds_the_whole_report(data):
    assert json.loads(render(data, "json")) == json.loads(json.dumps(data.to_json()))
    assert data.to_json()["schema_version"] == 1


def test_sarif_has_the_structure_of_2_1_0(data):
    log = json.loads(render(data, "sarif"))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    run = log["runs"][0]
    driver = run["tool"]["driver"]
    assert driver["name"] == "csa-deploy"
    identifiers = [rule["id"] for rule in driver["rules"]]
    assert len(identifiers) == len(set(identifiers))
    expected = sum(len(scope.findings) for scope in data.scopes)
    assert len(run["results"]) == expected
    for result in run["results"]:
        assert identifiers[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][location["index"]]["location"]["uri"] == location["uri"] == "net.onnx"
    denied = next(result for result in run["results"] if result["ruleId"] == "drive-os-6/reduce")
    assert denied["level"] == "error"
    assert denied["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "head/pool"


@pytest.mark.parametrize("strict", [False, True])
def test_junit_counts_what_it_holds(strict):
    report = judged(network(), ["drive-os-6"], strict=strict, name="net.onnx")
    root = ElementTree.fromstring(render(report, "junit"))
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == int(root.get("tests")) == len(cases)
    failed = [case for case in cases if case.find("failure") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert int(suite.get("failures")) == len(failed)
    assert int(suite.get("skipped")) == len(skipped)
    assert (len(failed), len(skipped)) == ((2, 0) if strict else (1, 1))
    assert {entry.get("name"): entry.get("value") for entry in suite.iter("property")}["level"] == "static"


def test_junit_of_an_allowed_network_has_a_case_that_passes():
    root = ElementTree.fromstring(render(judged(single("Relu"), ["drive-os-6"]), "junit"))
    case = root.find("testsuite/testcase")
    assert "allowed (evidence: static)" in case.get("name")
    assert list(case) == []


def test_html_loads_nothing_and_shows_placement(data):
    page = render(data, "html")
    assert "http" not in page
    assert "fall back to the GPU" in page


def test_explain_knows_every_rule_of_every_pack():
    for scope in scopes():
        for rule in load_pack(scope).rules:
            text = explain(f"{scope}/{rule.id}")
            assert rule.source in text
            assert scope in text


def test_explain_names_the_nearest_rules_and_the_missing_rule():
    with pytest.raises(UsageError, match="reduse") as caught:
        explain("reduse")
    assert "reduce" in str(caught.value)
    assert "default" in explain("no-rule")
    assert "drive-os-6 (TensorRT 8.6.11)" in explain("reduce")


def test_the_lists_of_packs_and_rules():
    packs = {pack.scope: pack for pack in list_packs()}
    assert set(packs) == set(scopes())
    assert packs["dla-orin"].rules == len(load_pack("dla-orin").rules)
    assert packs["dla-orin"].to_json()["kind"] == "dla"


def test_every_repair_that_a_rule_names_exists():
    from csa_deploy.graph.repair import REPAIRS

    named = {
        name for scope in scopes() for rule in load_pack(scope).rules if rule.repair for name in rule.repair.split(", ")
    }
    assert named <= set(REPAIRS)
