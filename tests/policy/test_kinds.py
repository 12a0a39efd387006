"""The other kinds: what is read of them, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from policy.cidr import parse_address, parse_cidr
from policy.decode import decode_document, decode_objects
from policy.documents import Document
from policy.labels import dns_label_problem
from policy.model import ContainerPort, Endpoint, EndpointSlice, Namespace, Node, Pod, Service, ServicePort
from policy.selector import NAMESPACE_NAME_LABEL
from policy.source import Source
from tests.policy.given import read

DNS = "expected at most 253 lower-case letters, digits, '-' or '.', with a letter or digit at both ends"

A_PORT = "expected a number from 1 to 65535"


def one(tree: dict[str, Any]) -> tuple[Any, list[str]]:
    decoded = decode_objects([{"apiVersion": "v1", **tree}])
    cluster = decoded.cluster
    found = {
        "Pod": cluster.pods,
        "Namespace": cluster.namespaces,
        "Node": cluster.nodes,
        "Service": cluster.services,
        "EndpointSlice": cluster.slices,
    }[tree["kind"]]
    assert len(found) == 1
    return found[0], [str(problem) for problem in decoded.problems]


def pod(problems: int = 0, **fields: Any) -> Pod:
    found, said = one({"kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, **fields})
    assert len(said) == problems, said
    assert isinstance(found, Pod)
    return found


def test_pod_whole() -> None:
    found, said = one(
        {
            "kind": "Pod",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "labels": {"app": "web"},
                "annotations": {"a": "b"},
                "uid": "u-1",
                "deletionTimestamp": "2024-01-01T00:00:00Z",
            },
            "spec": {
                "nodeName": "n1",
                "hostNetwork": True,
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http", "hostPort": 8080}]}],
            },
            "status": {"phase": "Failed", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }
    )
    assert said == []
    assert found == Pod(
        namespace="shop",
        name="web",
        labels={"app": "web"},
        uid="u-1",
        node="n1",
        addresses=(parse_address("10.0.0.1"), parse_address("fd00::1")),
        ports=(ContainerPort("http", "TCP", 80, 8080),),
        host_network=True,
        phase="Failed",
        deleting=True,
    )


def test_row_37_objects_without_a_namespace_are_in_default() -> None:
    decoded = decode_objects([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": None}}])
    assert [found.namespace for found in decoded.cluster.pods] == ["default"]
    assert decoded.cluster.namespaces == [Namespace("default", {NAMESPACE_NAME_LABEL: "default"})]


def test_row_20_ports_of_containers_and_restartable_init_containers() -> None:
    found = pod(
        spec={
            "initContainers": [
                {"ports": [{"containerPort": 1}]},
                {"ports": [{"containerPort": 2, "name": "side"}], "restartPolicy": "Always"},
                {"ports": [{"containerPort": 3}], "restartPolicy": "OnFailure"},
            ],
            "containers": [{"ports": [{"containerPort": 4, "protocol": "UDP"}, {"containerPort": 5}]}, {"name": "c"}],
        }
    )
    assert [(port.port, port.protocol, port.name) for port in found.ports] == [
        (4, "UDP", ""),
        (5, "TCP", ""),
        (2, "TCP", "side"),
    ]


def test_pod_addresses_from_either_field() -> None:
    one, two = parse_address("10.0.0.1"), parse_address("10.0.0.2")
    assert pod(status={"podIP": "10.0.0.1"}).addresses == (one,)
    assert pod(status={"podIPs": [{"ip": "10.0.0.1"}]}).addresses == (one,)
    assert pod(status={"podIPs": [{"ip": "10.0.0.2"}], "podIP": "10.0.0.1"}).addresses == (two, one)
    assert pod(status={"podIP": "", "podIPs": []}).addresses == ()


def test_row_36_the_name_label_is_always_there_and_always_the_name() -> None:
    found, said = one({"kind": "Namespace", "metadata": {"name": "shop", "labels": {NAMESPACE_NAME_LABEL: "bank"}}})
    assert found == Namespace("shop", {NAMESPACE_NAME_LABEL: "shop"})
    assert said == []


def test_service() -> None:
    spec = {
        "type": "NodePort",
        "selector": {"app": "web"},
        "clusterIP": "10.1.0.1",
        "clusterIPs": ["10.1.0.1", "fd01::1"],
        "ports": [
            {"port": 80},
            {"port": 81, "targetPort": "http", "protocol": "UDP", "name": "b", "nodePort": 30000},
            {"port": 82, "targetPort": 8082},
        ],
    }
    found, said = one({"kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    assert said == []
    assert found == Service(
        "default",
        "web",
        "NodePort",
        {"app": "web"},
        (parse_address("10.1.0.1"), parse_address("fd01::1")),
        (
            ServicePort("", "TCP", 80, 80),
            ServicePort("b", "UDP", 81, "http", 30000),
            ServicePort("", "TCP", 82, 8082),
        ),
    )


def test_services_without_selector_headless_and_external() -> None:
    bare, _ = one({"kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "None"}})
    assert (bare.selector, bare.cluster_ips) == (None, ())
    spec = {"type": "ExternalName", "externalName": "example.org"}
    assert one({"kind": "Service", "metadata": {"name": "web"}, "spec": spec})[0].external_name == "example.org"


def test_endpoint_slice() -> None:
    found, said = one(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "web-1"}, "conditions": {}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": False}, "targetRef": {"kind": "Node", "name": "n"}},
            ],
            "ports": [{"name": "http", "port": 8080}],
        }
    )
    assert said == []
    assert found == EndpointSlice(
        "default",
        "web-x",
        "web",
        (
            Endpoint((parse_address("10.0.0.1"),), True, "web-1"),
            Endpoint((parse_address("10.0.0.2"),), False, ""),
        ),
        (ServicePort("http", "TCP", 8080, 8080),),
    )


def test_node() -> None:
    found, said = one(
        {
            "kind": "Node",
            "metadata": {"name": "n1", "labels": {"zone": "a"}},
            "spec": {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00:1::/64"]},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "192.168.0.1"},
                    {"type": "Hostname", "address": "n1"},
                    {"type": "ExternalIP", "address": "fd02::1"},
                ]
            },
        }
    )
    assert said == []
    assert found == Node(
        "n1",
        {"zone": "a"},
        (parse_address("192.168.0.1"), parse_address("fd02::1")),
        (parse_cidr("10.0.1.0/24"), parse_cidr("fd00:1::/64")),
    )


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"kind": "Pod"}, "Pod default/(unnamed): metadata.name: missing, expected the object's name"),
        (
            {"kind": "Pod", "metadata": {"name": "We"}},
            f"Pod default/We: metadata.name: not a DNS name: 'We', {DNS}",
        ),
        (
            {"kind": "Pod", "metadata": {"name": "web", "namespace": "a.b"}},
            f"Pod a.b/web: metadata.namespace: {dns_label_problem('a.b')}",
        ),
        (
            {"kind": "Pod", "metadata": {"name": "web", "lables": {}}},
            "Pod default/web: metadata.lables: unknown field, did you mean 'labels'?",
        ),
        (
            {"kind": "Pod", "metadata": {"name": "web", "labels": {"a": 1}}},
            "Pod default/web: metadata.labels.a: the number 1, expected text in quotes",
        ),
        (
            {"kind": "Pod", "metadata": {"name": "web", "labels": {"a": "x y"}}},
            (
                "Pod default/web: metadata.labels.a: not a label value: 'x y', expected at most 63 letters, digits, "
                "'-', '_' or '.', with a letter or digit at both ends"
            ),
        ),
        (
            {"kind": "Pod", "apiVersion": "v2", "metadata": {"name": "web"}},
            "Pod default/web: apiVersion: 'v2' is not read, expected v1",
        ),
        (
            {"kind": "Namespace", "metadata": {"name": "a.b"}},
            f"Namespace a.b: metadata.name: {dns_label_problem('a.b')}",
        ),
        (
            {"kind": "Service", "metadata": {"name": "1a"}},
            (
                "Service default/1a: metadata.name: not a DNS label: '1a', expected at most 63 lower-case letters, "
                "digits or '-', with a letter first and a letter or digit last"
            ),
        ),
        (
            {"kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"name": "b"}]}},
            "Service default/a: spec.ports[0].port: missing, expected a number from 1 to 65535",
        ),
        (
            {"kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/8", "x"]}},
            "Node n: spec.podCIDRs[1]: not a CIDR: 'x', expected one",
        ),
    ],
)
def test_what_is_said_of_wrong_objects(tree: dict[str, Any], problem: str) -> None:
    assert one(tree)[1] == [problem]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"spec": []}, "spec: a list, expected a mapping"),
        ({"spec": {"hostNetwork": "yes"}}, "spec.hostNetwork: the text 'yes', expected true or false"),
        ({"spec": {"containers": {}}}, "spec.containers: a mapping, expected a list"),
        ({"spec": {"containers": [None]}}, "spec.containers[0]: null, expected a mapping"),
        (
            {"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}},
            "spec.containers[0].ports[0].containerPort: the text '80', expected a whole number",
        ),
        (
            {"spec": {"containers": [{"ports": [{"containerPort": 70000}]}]}},
            "spec.containers[0].ports[0].containerPort: the number 70000, expected a number from 1 to 65535",
        ),
        (
            {"spec": {"containers": [{"ports": [{"containerPort": 1, "protocol": "tcp"}]}]}},
            "spec.containers[0].ports[0].protocol: the text 'tcp', expected TCP, UDP or SCTP",
        ),
        (
            {"spec": {"containers": [{"ports": [{"name": "http"}]}]}},
            "spec.containers[0].ports[0].containerPort: missing, expected a number from 1 to 65535",
        ),
        ({"status": {"podIPs": [{"ip": "10.0.0"}]}}, "status.podIPs[0].ip: not an IP address: '10.0.0', expected one"),
    ],
)
def test_a_wrong_field_of_a_pod_is_left_out(fields: dict[str, Any], problem: str) -> None:
    tree = {"kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}}, **fields}
    found, said = one(tree)
    assert said == [f"Pod shop/web: {problem}"]
    assert found == Pod("shop", "web", {"a": "b"})


def test_every_wrong_field_is_found_not_only_the_first() -> None:
    said = [
        str(problem)
        for problem in read(
            """\
            apiVersion: v1
            kind: Pod
            metadata:
              name: 7
              labels:
                a: 1
                b: ok
                c:
              label: {}
            spec:
              containers:
              - ports:
                - containerPort: x
                - 5
                - {containerPort: 99999}
            """,
            "f",
        ).problems
    ]
    assert said == [
        "f:4: Pod default/7: metadata.name: the number 7, expected text in quotes",
        "f:6: Pod default/7: metadata.labels.a: the number 1, expected text in quotes",
        "f:8: Pod default/7: metadata.labels.c: null, expected text in quotes",
        "f:9: Pod default/7: metadata.label: unknown field, did you mean 'labels'?",
        "f:13: Pod default/7: spec.containers[0].ports[0].containerPort: the text 'x', expected a whole number",
        "f:14: Pod default/7: spec.containers[0].ports[1]: the number 5, expected a mapping",
        f"f:15: Pod default/7: spec.containers[0].ports[2].containerPort: the number 99999, {A_PORT}",
    ]


def test_endlessly_wrong_objects_are_given_up() -> None:
    decoded = decode_objects(
        [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", **{f"x{n}": n for n in range(5000)}}}]
    )
    assert len(decoded.problems) < 200
    assert "more than 100 wrong fields" in {problem.reason for problem in decoded.problems}


def test_the_api_server_may_know_more_fields_of_metadata_than_we_do() -> None:
    body = b'{"metadata": {"name": "web", "labels": {"a": "b"}, "newField": 1}}'
    stored = decode_document(Document("Pod", "v1", Raw(body)))
    assert stored.object == Pod("default", "web", {"a": "b"})
    assert (stored.problems, stored.unreadable) == ((), False)
    written = decode_document(Document("Pod", "v1", Raw(body), Source("f", 1, lambda _: 1)))
    assert [problem.field for problem in written.problems] == ["metadata.newField"]
    assert written.unreadable


def test_an_object_of_the_api_server_that_cannot_be_decoded_is_named() -> None:
    item = decode_document(Document("Pod", "v1", Raw(b'{"metadata": {"name": "web", "labels": 1, "newField": 1}}')))
    assert [str(problem) for problem in item.problems] == [
        "Pod default/web: metadata.labels: the number 1, expected a mapping"
    ]
    assert item.unreadable
