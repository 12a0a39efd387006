"""Connections between the pods of a lab, and what `podfence node apply` does about them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from enforcer.connections.flows import Change, Flows
from enforcer.keeping.host import attached, execute, plans
from enforcer.rules.base import DEFAULT_MARK
from enforcer.rules.layout import NodeView
from policy.cidr import Family
from tests.enforcer.test_kernel import World

NO_WAY = 0.15


def policy(*ports: str) -> str:
    """api may be reached by web's pods at these ports; every port and ICMP at `*`."""
    rule = "- {from: [{podSelector: {matchLabels: {app: web}}}]"
    if ports != ("*",):
        listed = ", ".join(f"{{port: {p.split('/')[0]}, protocol: {p.split('/')[1]}}}" for p in ports)
        rule += f", ports: [{listed}]"
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: api, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: api}}}}
  policyTypes: [Ingress]
  ingress: {"" if ports else "[]"}
    {rule + "}" if ports else ""}
"""


ALLOWED, DENIED = policy("*"), policy()


def apply(world: World, policies: str, node: str = "n1", end: bool = True, mark: int = DEFAULT_MARK) -> Flows:
    """What `podfence node apply` does."""
    compiled = world.compiled(policies)
    blocks = next(each.pod_cidrs for each in world.lab.cluster.nodes if each.name == node)
    with world.lab.inside(node):
        found = attached(compiled, node, {}).veths
        view = NodeView(node, found, blocks, mark=mark)
        steps = plans(world.backend, compiled, view)
        change = Change(compiled, view, [each.actual for each in steps])
        foreseen = change.foresee(end)
        for family_plan in steps:
            execute(world.backend, family_plan.steps)
        settled = change.settle(end)
    assert settled == foreseen
    return settled


class Connection:
    """A client and a server that know each other; each says what arrives."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def alive(self) -> None:
        """Both ways."""
        self.client.send(b"ping")
        assert self.server.recv(99) == b"ping"
        self.server.send(b"pong")
        assert self.client.recv(99) == b"pong"

    def nothing_arrives(self, sender: socket.socket, receiver: socket.socket) -> None:
        sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # which clears it
        sender.send(b"leak")
        assert silent(receiver)
        sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def silent(sock: socket.socket) -> bool:
    """Nothing but an error comes."""
    sock.settimeout(NO_WAY)
    try:
        return not sock.recv(99)
    except OSError:
        return True


def was_reset(sock: socket.socket) -> bool:
    sock.settimeout(1)
    try:
        sock.recv(99)
    except ConnectionResetError:
        return True
    return False


@contextmanager
def connection(
    world: World,
    src: str,
    dst: str,
    kind: str = "TCP",
    port: int = 80,
    family: Family = 4,
    via: tuple[str, int] | None = None,
) -> Iterator[Connection]:
    """From a client at `src` to a server at `dst`, which the client knows as `via`."""
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    sort = socket.SOCK_STREAM if kind == "TCP" else socket.SOCK_DGRAM
    where = (str(world.lab.host(dst).address(family)), port)
    with ExitStack() as exits:
        with world.lab.inside(dst):
            server = exits.enter_context(socket.socket(af, sort))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(where)
        with world.lab.inside(src):
            client = exits.enter_context(socket.socket(af, sort))
        for sock in (client, server):
            sock.settimeout(2)
        if kind == "TCP":
            server.listen()
        client.connect(via or where)
        if kind == "TCP":
            accepted, _ = server.accept()
            server = exits.enter_context(accepted)
            server.settimeout(2)
        else:
            client.send(b"hello")
            _, peer = server.recvfrom(99)
            server.connect(peer)
        yield Connection(client, server)


def marks(world: World) -> list[int]:
    """Of the UDP flows to port 80."""
    lines = world.lab.run("n1", ["conntrack", "-L", "-p", "udp", "--orig-port-dst", "80"]).stdout.splitlines()
    return [int(line.split("mark=")[1].split()[0]) for line in lines]
