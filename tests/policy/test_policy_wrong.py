"""Wrong policies: each complaint whole, with its line, and what the policy then means (semantics, row 34)."""

from __future__ import annotations

import pytest

from policy.model import DIRECTIONS
from policy.selector import EVERYTHING, in_, selector
from tests.policy.given import HEAD, policy_in, policy_of, read, understood

LABEL = "expected at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"
PORT_NAME = "expected at most 15 lower-case letters, digits or single '-', with at least one letter"
BLOCK = "expected a block such as 10.0.0.0/8 or fd00::/8"
DNS = "expected at most 253 lower-case letters, digits, '-' or '.', with a letter or digit at both ends"
A_PORT = "expected a number from 1 to 65535, or a port's name"

# An entry of `ingress`, and what is said of it: path below `spec.ingress[0]`, reason.
WRONG_RULES = [
    ("form: [{podSelector: {}}]", ".form", "unknown field, did you mean 'from'?"),
    ("to: [{podSelector: {}}]", ".to", "unknown field, expected one of from, ports"),
    ("From: [{podSelector: {}}]", ".From", "unknown field, did you mean 'from'?"),
    ("from: {podSelector: {}}", ".from", "a mapping, expected a list"),
    ("from: [null]", ".from[0]", "null, expected a mapping"),
    ("from: [web]", ".from[0]", "the text 'web', expected a mapping"),
    ("from: [{}]", ".from[0]", "an empty peer, expected podSelector, namespaceSelector or ipBlock"),
    (
        "from: [{podSelector: null}]",
        ".from[0]",
        "an empty peer, expected podSelector, namespaceSelector or ipBlock",
    ),
    ("from: [{podselector: {}}]", ".from[0].podselector", "unknown field, did you mean 'podSelector'?"),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]",
        ".from[0]",
        "ipBlock beside a selector, expected one or the other",
    ),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}]",
        ".from[0]",
        "ipBlock beside a selector, expected one or the other",
    ),
    ("from: [{ipBlock: 10.0.0.0/8}]", ".from[0].ipBlock", "the text '10.0.0.0/8', expected a mapping"),
    ("from: [{ipBlock: {}}]", ".from[0].ipBlock.cidr", f"missing, {BLOCK}"),
    ("from: [{ipBlock: {cidr: ''}}]", ".from[0].ipBlock.cidr", f"missing, {BLOCK}"),
    ("from: [{ipBlock: {cidr: 10.0/33}}]", ".from[0].ipBlock.cidr", f"not a CIDR: '10.0/33', {BLOCK}"),
    ("from: [{ipBlock: {cidr: 10.0.0.1}}]", ".from[0].ipBlock.cidr", f"not a CIDR: '10.0.0.1', {BLOCK}"),
    ("from: [{ipBlock: {cidr: 10}}]", ".from[0].ipBlock.cidr", f"the number 10, {BLOCK}"),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8, expect: []}}]",
        ".from[0].ipBlock.expect",
        "unknown field, did you mean 'except'?",
    ),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}]",
        ".from[0].ipBlock.except[0]",
        "'192.168.0.0/16' is not inside cidr, expected a smaller block within 10.0.0.0/8",
    ),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]",
        ".from[0].ipBlock.except[0]",
        "'10.0.0.0/8' is not inside cidr, expected a smaller block within 10.0.0.0/8",
    ),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [fd00::/64]}}]",
        ".from[0].ipBlock.except[0]",
        "'fd00::/64' is not inside cidr, expected a smaller block within 10.0.0.0/8",
    ),
    (
        "from: [{ipBlock: {cidr: 10.0.0.0/8, except: 10.1.0.0/16}}]",
        ".from[0].ipBlock.except",
        "the text '10.1.0.0/16', expected a list",
    ),
    ("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [null]}}]", ".from[0].ipBlock.except[0]", f"missing, {BLOCK}"),
    ("ports: {port: 80}", ".ports", "a mapping, expected a list"),
    ("ports: [null]", ".ports[0]", "null, expected a mapping"),
    ("ports: [80]", ".ports[0]", "the number 80, expected a mapping"),
    ("ports: [{prot: TCP}]", ".ports[0].prot", "unknown field, did you mean 'port'?"),
    ("ports: [{protocol: tcp}]", ".ports[0].protocol", "the text 'tcp', expected TCP, UDP or SCTP"),
    ("ports: [{protocol: ICMP}]", ".ports[0].protocol", "the text 'ICMP', expected TCP, UDP or SCTP"),
    ("ports: [{protocol: [TCP]}]", ".ports[0].protocol", "a list, expected TCP, UDP or SCTP"),
    ("ports: [{port: 0}]", ".ports[0].port", f"the number 0, {A_PORT}"),
    ("ports: [{port: -1}]", ".ports[0].port", f"the number -1, {A_PORT}"),
    ("ports: [{port: 65536}]", ".ports[0].port", f"the number 65536, {A_PORT}"),
    ("ports: [{port: 80.5}]", ".ports[0].port", f"the number 80.5, {A_PORT}"),
    ("ports: [{port: true}]", ".ports[0].port", f"the boolean true, {A_PORT}"),
    ("ports: [{port: yes}]", ".ports[0].port", f"the boolean true, {A_PORT}"),
    (
        "ports: [{port: '80'}]",
        ".ports[0].port",
        "a number in quotes: '80', expected 80 without quotes, or a port's name",
    ),
    ("ports: [{port: HTTP}]", ".ports[0].port", f"not a port name: 'HTTP', {PORT_NAME}"),
    ("ports: [{port: ''}]", ".ports[0].port", f"not a port name: '', {PORT_NAME}"),
    ("ports: [{port: a--b}]", ".ports[0].port", f"not a port name: 'a--b', {PORT_NAME}"),
    ("ports: [{port: -web}]", ".ports[0].port", f"not a port name: '-web', {PORT_NAME}"),
    ("ports: [{port: sixteen-letters-}]", ".ports[0].port", f"not a port name: 'sixteen-letters-', {PORT_NAME}"),
    ("ports: [{endPort: 90}]", ".ports[0].endPort", "without a number in port, expected both or neither"),
    (
        "ports: [{port: http, endPort: 90}]",
        ".ports[0].endPort",
        "without a number in port, expected both or neither",
    ),
    ("ports: [{port: 90, endPort: 80}]", ".ports[0].endPort", "80 is smaller than port, expected at least 90"),
    (
        "ports: [{port: 90, endPort: '99'}]",
        ".ports[0].endPort",
        "the text '99', expected a number from 1 to 65535",
    ),
    (
        "ports: [{port: 90, endPort: 70000}]",
        ".ports[0].endPort",
        "the number 70000, expected a number from 1 to 65535",
    ),
]
# A selector, and what is said of it: path below the selector, reason.
WRONG_SELECTORS = [
    ("web", "", "the text 'web', expected a mapping with matchLabels or matchExpressions"),
    ("{app: web}", ".app", "unknown field, expected one of matchExpressions, matchLabels"),
    ("{matchlabels: {app: web}}", ".matchlabels", "unknown field, did you mean 'matchLabels'?"),
    ("{matchLabels: [app]}", ".matchLabels", "a list, expected a mapping of labels"),
    ("{matchLabels: {app: 1}}", ".matchLabels.app", "the number 1, expected text in quotes"),
    ("{matchLabels: {app: no}}", ".matchLabels.app", "the boolean false, expected text in quotes"),
    ("{matchLabels: {app: null}}", ".matchLabels.app", "null, expected text in quotes"),
    ("{matchLabels: {app: 'a b'}}", ".matchLabels.app", f"not a label value: 'a b', {LABEL}"),
    ("{matchLabels: {app: -a}}", ".matchLabels.app", f"not a label value: '-a', {LABEL}"),
    ("{matchLabels: {'a b': x}}", ".matchLabels['a b']", f"not a label key: 'a b', {LABEL}"),
    ("{matchLabels: {'': x}}", ".matchLabels['']", f"not a label key: '', {LABEL}"),
    (
        "{matchLabels: {UP/a: x}}",
        ".matchLabels['UP/a']",
        "not a label key: 'UP/a', expected a DNS name of at most 253 characters before the slash",
    ),
    ("{matchExpressions: {key: a}}", ".matchExpressions", "a mapping, expected a list"),
    ("{matchExpressions: [null]}", ".matchExpressions[0]", "null, expected a mapping"),
    ("{matchExpressions: [{operator: Exists}]}", ".matchExpressions[0].key", "missing, expected a label key"),
    (
        "{matchExpressions: [{key: 1, operator: Exists}]}",
        ".matchExpressions[0].key",
        "the number 1, expected a label key",
    ),
    (
        "{matchExpressions: [{key: a}]}",
        ".matchExpressions[0].operator",
        "null, expected In, NotIn, Exists or DoesNotExist",
    ),
    (
        "{matchExpressions: [{key: a, operator: in, values: [x]}]}",
        ".matchExpressions[0].operator",
        "the text 'in', expected In, NotIn, Exists or DoesNotExist",
    ),
    (
        "{matchExpressions: [{key: a, operator: Gt, values: ['1']}]}",
        ".matchExpressions[0].operator",
        "the text 'Gt', expected In, NotIn, Exists or DoesNotExist",
    ),
    (
        "{matchExpressions: [{key: a, operator: In}]}",
        ".matchExpressions[0].values",
        "empty, expected at least one value for In",
    ),
    (
        "{matchExpressions: [{key: a, operator: NotIn, values: []}]}",
        ".matchExpressions[0].values",
        "empty, expected at least one value for NotIn",
    ),
    (
        "{matchExpressions: [{key: a, operator: Exists, values: [x]}]}",
        ".matchExpressions[0].values",
        "given, expected none for Exists",
    ),
    (
        "{matchExpressions: [{key: a, operator: DoesNotExist, values: [x]}]}",
        ".matchExpressions[0].values",
        "given, expected none for DoesNotExist",
    ),
    (
        "{matchExpressions: [{key: a, operator: In, values: x}]}",
        ".matchExpressions[0].values",
        "the text 'x', expected a list",
    ),
    (
        "{matchExpressions: [{key: a, operator: In, values: [x, 1]}]}",
        ".matchExpressions[0].values[1]",
        "the number 1, expected text in quotes",
    ),
    (
        "{matchExpressions: [{key: a, operator: In, value: [x], values: [x]}]}",
        ".matchExpressions[0].value",
        "unknown field, did you mean 'values'?",
    ),
]


@pytest.mark.parametrize(("rule", "path", "reason"), WRONG_RULES)
def test_a_wrong_rule_grants_nothing_and_keeps_its_place(rule: str, path: str, reason: str) -> None:
    policy, problems = policy_of(f"podSelector: {{}}\ningress:\n- {{{rule}}}\n- ports: [{{port: 443}}]")
    assert reason_at(problems, f"7: spec.ingress[0]{path}: ") == reason
    assert understood(policy) == [False, True]
    assert policy.ingress[0].peers == policy.ingress[0].ports == ()
    assert policy.isolates == ("ingress",)


@pytest.mark.parametrize(("chosen", "path", "reason"), WRONG_SELECTORS)
@pytest.mark.parametrize("field", ["podSelector", "namespaceSelector"])
def test_a_wrong_selector_in_a_peer_loses_its_rule(field: str, chosen: str, path: str, reason: str) -> None:
    policy, problems = policy_of(f"podSelector: {{}}\negress:\n- to:\n  - {field}: {chosen}\n- {{}}")
    place = f"spec.egress[0].to[0].{field}{path}"
    assert f"{reason_at(problems, f'8: {place}: ')}" == reason
    assert understood(policy) == [False, True]
    assert policy.isolates == DIRECTIONS


@pytest.mark.parametrize(("chosen", "path", "reason"), WRONG_SELECTORS)
def test_an_unreadable_subject_isolates_the_namespace_and_grants_nothing(chosen: str, path: str, reason: str) -> None:
    policy, problems = policy_of(f"podSelector: {chosen}\npolicyTypes: [Egress]\negress: [{{}}]\ningress: [{{}}]")
    assert reason_at(problems, f"5: spec.podSelector{path}: ") == reason
    assert policy.subjects is EVERYTHING
    assert policy.isolates == ("egress",)
    assert understood(policy) == [False, False]


def reason_at(problems: list[str], start: str) -> str:
    (found,) = [problem.removeprefix(start) for problem in problems if problem.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("types", "at", "reason"),
    [
        ("[Ingres]", "[0]", "the text 'Ingres', expected Ingress or Egress"),
        ("[Ingress, egress]", "[1]", "the text 'egress', expected Ingress or Egress"),
        ("[null]", "[0]", "null, expected Ingress or Egress"),
        ("[[Ingress]]", "[0]", "a list, expected Ingress or Egress"),
        ("Ingress", "", "the text 'Ingress', expected a list of Ingress, Egress"),
        ("{Ingress: true}", "", "a mapping, expected a list of Ingress, Egress"),
    ],
)
def test_an_unreadable_policy_type_isolates_both_directions(types: str, at: str, reason: str) -> None:
    policy, problems = policy_of(f"podSelector: {{}}\npolicyTypes: {types}\ningress: [{{}}]")
    assert problems == [f"6: spec.policyTypes{at}: {reason}"]
    assert policy.isolates == DIRECTIONS
    assert understood(policy) == [True]


def test_three_policy_types_are_too_many() -> None:
    policy, problems = policy_of("podSelector: {}\npolicyTypes: [Ingress, Ingress, Ingress]")
    assert problems == ["6: spec.policyTypes: 3 entries, expected at most 2"]
    assert policy.isolates == ("ingress",)


def test_an_unknown_field_of_the_spec_isolates_both_directions_and_grants_nothing() -> None:
    policy, problems = policy_of("podSelector: {matchLabels: {app: api}}\ningress: [{}]\npolicytypes: [Ingress]")
    assert problems == ["7: spec.policytypes: unknown field, did you mean 'policyTypes'?"]
    assert policy.subjects == selector([in_("app", "api")])
    assert policy.isolates == DIRECTIONS
    assert understood(policy) == [False]


def test_a_misspelt_pod_selector_grants_nothing() -> None:
    policy, problems = policy_of("podselector: {matchLabels: {app: api}}\ningress: [{}]")
    assert problems == ["5: spec.podselector: unknown field, did you mean 'podSelector'?"]
    assert policy.subjects is EVERYTHING
    assert understood(policy) == [False]


def test_an_unknown_field_at_the_top_isolates_both_directions_and_grants_nothing() -> None:
    policy, problems = policy_in(f"{HEAD}spec: {{podSelector: {{}}, ingress: [{{}}]}}\nspecs: {{}}\n")
    assert problems == ["5: specs: unknown field, did you mean 'spec'?"]
    assert policy.isolates == DIRECTIONS
    assert understood(policy) == [False]


@pytest.mark.parametrize(
    ("version", "place"),
    [("extensions/v1beta1", "1: "), ("networking.k8s.io/v2", "1: "), ("networking.k8s.i/v1", "1: ")],
)
def test_another_version_of_the_api_isolates_and_grants_nothing(version: str, place: str) -> None:
    text = f"{HEAD}spec: {{podSelector: {{}}, ingress: [{{}}]}}\n".replace("networking.k8s.io/v1", version)
    policy, problems = policy_in(text)
    assert problems == [f"{place}apiVersion: '{version}' is not read, expected networking.k8s.io/v1"]
    assert policy.isolates == DIRECTIONS
    assert understood(policy) == [False]


@pytest.mark.parametrize("spec", ["spec: null", "spec: {}", ""])
def test_an_absent_spec_isolates_every_pod_as_the_api_server_has_it(spec: str) -> None:
    policy, problems = policy_in(f"{HEAD}{spec}\n")
    assert problems == []
    assert (policy.subjects, policy.isolates, understood(policy)) == (EVERYTHING, ("ingress",), [])


def test_a_spec_that_is_no_mapping_isolates_both_directions() -> None:
    policy, problems = policy_in(f"{HEAD}spec: [podSelector]\n")
    assert problems == ["4: spec: a list, expected a mapping"]
    assert (policy.subjects, policy.isolates, understood(policy)) == (EVERYTHING, DIRECTIONS, [])


@pytest.mark.parametrize(("direction", "isolates"), [("ingress", ("ingress",)), ("egress", DIRECTIONS)])
@pytest.mark.parametrize(
    ("value", "what"), [("{}", "a mapping"), ("all", "the text 'all'"), ("{from: []}", "a mapping")]
)
def test_rules_that_are_no_list_isolate_and_grant_nothing(
    direction: str, isolates: tuple[str, ...], value: str, what: str
) -> None:
    policy, problems = policy_of(f"podSelector: {{}}\n{direction}: {value}")
    assert problems == [f"6: spec.{direction}: {what}, expected a list"]
    assert policy.isolates == isolates
    assert policy.ingress == policy.egress == ()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("entry", "what"), [("null", "null"), ("[]", "a list"), ("allow", "the text 'allow'")])
def test_a_rule_that_is_no_mapping_is_not_read_as_allowing_everything(direction: str, entry: str, what: str) -> None:
    policy, problems = policy_of(f"podSelector: {{}}\n{direction}:\n- {entry}\n- ports: [{{port: 1}}]")
    assert problems == [f"7: spec.{direction}[0]: {what}, expected a mapping"]
    assert understood(policy) == [False, True]
    assert direction in policy.isolates


def test_every_problem_of_a_policy_is_said_at_once_in_the_order_of_the_file() -> None:
    _, problems = policy_of(
        """\
        podSelector: {}
        policyTypes: [Ingress, Both]
        ingress:
        - from:
          - podSelector: {matchLabels: {app: "-"}}
          - ipBlock:
              cidr: 10.0.0.0/40
          ports:
          - port: 80
            protocol: tcp
            endport: 81
        """
    )
    assert problems == [
        "6: spec.policyTypes[1]: the text 'Both', expected Ingress or Egress",
        f"9: spec.ingress[0].from[0].podSelector.matchLabels.app: not a label value: '-', {LABEL}",
        f"11: spec.ingress[0].from[1].ipBlock.cidr: not a CIDR: '10.0.0.0/40', {BLOCK}",
        "14: spec.ingress[0].ports[0].protocol: the text 'tcp', expected TCP, UDP or SCTP",
        "15: spec.ingress[0].ports[0].endport: unknown field, did you mean 'endPort'?",
    ]


@pytest.mark.parametrize(
    "metadata",
    [
        "{name: api, namepsace: shop}",
        "{name: api, namespace: [shop]}",
        "{name: api, namespace: 5}",
        "{name: api, Namespace: shop}",
        "{namespace: shop}",
        "{name: api, namespace: Shop}",
        "shop",
        "[shop]",
        "null",
    ],
)
def test_a_policy_that_may_be_misfiled_isolates_and_grants_nothing(metadata: str) -> None:
    text = HEAD.replace("{name: api, namespace: shop}", metadata) + "spec: {podSelector: {}, ingress: [{}]}\n"
    decoded = read(text)
    (policy,) = decoded.cluster.policies
    assert (policy.isolates, understood(policy), policy.subjects) == (DIRECTIONS, [False], EVERYTHING)
    assert [problem.field.partition(".")[0] for problem in decoded.problems] == ["metadata"] * len(decoded.problems)
    assert decoded.problems


def test_a_wrong_name_or_label_isolates_and_grants_nothing() -> None:
    text = f"{HEAD}spec: {{podSelector: {{}}, ingress: [{{}}]}}\n".replace("name: api", "name: A_pi, labels: {a: ' '}")
    decoded = read(text)
    assert [str(problem) for problem in decoded.problems] == [
        f"policies/api.yaml:3: NetworkPolicy shop/A_pi: metadata.labels.a: not a label value: ' ', {LABEL}",
        f"policies/api.yaml:3: NetworkPolicy shop/A_pi: metadata.name: not a DNS name: 'A_pi', {DNS}",
    ]
    (policy,) = decoded.cluster.policies
    assert (policy.key, understood(policy), policy.isolates) == ("shop/A_pi", [False], DIRECTIONS)


def test_terminal_escapes_are_spelled_out_wherever_input_is_shown() -> None:
    evil = "\x1b[2J\u202e"
    text = f"{HEAD}spec: {{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: EVIL}}}}], EVIL: 1}}]}}\n"
    text = text.replace("EVIL", '"\\e[2J\\u202e"').replace("name: api", 'name: "\\e[2J\\u202e"')
    problems = [str(problem) for problem in read(text).problems]
    assert len(problems) == 3
    assert all(problem.isprintable() and "[2J" in problem for problem in problems), problems
    assert evil not in "".join(problems)
