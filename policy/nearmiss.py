"""Why one rule does not admit a flow: each obstacle in plain words, with what it costs and the change that ends it.

Never a second evaluator: verdicts come from allow-sets, and this is asked only about rules that these say do not admit.
The tests hold the two together: applied, the changes that a rule's obstacles name make the compiler admit the flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from policy.cidr import Prefix
from policy.model import IPBlock, Labels, Peer, Port, Protocol, Rule
from policy.obstacles import Asked, DeclarePort, Gap, Kind, MoveTo, Obstacle, Other, SetLabel, UseAddress, UsePort
from policy.selector import NAMESPACE_NAME_LABEL, KeyTest, Selector

# How far an obstacle is from none: the nearest miss comes first. A typo is nearest, what no label mends farthest.
_TYPO, _SERVICE_PORT, _PROTOCOL, _NUMBER, _LABEL, _NAMESPACE = 0.2, 0.3, 0.6, 1.0, 1.0, 1.2
_EXCEPT, _BLOCK, _NO_POD, _BLOCK_FOR_POD, _NOT_UNDERSTOOD, _NOTHING = 1.5, 2.5, 3.0, 4.0, 5.0, 6.0
_ALIKE = 0.74


def gap(rule: Rule, policy_namespace: str, other: Other, asked: Asked) -> Gap:
    """The nearest that `rule` comes. Peers and ports are ANDed, so the nearest of each make the nearest of both."""
    if not rule.understood:
        text = "the rule is not understood, so it grants nothing: `podfence validate` says what is wrong with it"
        return Gap(None, None, (Obstacle("not understood", text, _NOT_UNDERSTOOD),))
    peers = [peer_obstacles(peer, policy_namespace, other) for peer in rule.peers]
    ports = [_port_obstacles(port, rule.ports, asked) for port in rule.ports]
    peer, port = _nearest(peers), _nearest(ports)
    found = [*(() if peer is None else peers[peer]), *(() if port is None else ports[port])]
    return Gap(peer, port, tuple(sorted(found, key=lambda each: -each.cost)))


def _nearest(entries: Sequence[tuple[Obstacle, ...]]) -> int | None:
    costs = [sum(obstacle.cost for obstacle in obstacles) for obstacles in entries]
    return costs.index(min(costs)) if costs else None


def peer_obstacles(peer: Peer, policy_namespace: str, other: Other) -> tuple[Obstacle, ...]:
    """Why one entry of `from` or `to` does not match; empty where it does."""
    if peer.block is not None:
        return _block_obstacles(peer.block, other)
    pod = other.pod
    if pod is None:
        text = f"{other.what}, which no selector matches: only an ipBlock can"
        return (Obstacle("no pod", text, _NO_POD),)
    found: list[Obstacle] = []
    if peer.namespaces is None:
        if pod.namespace != policy_namespace:
            text = (
                f"the {other.role} pod is in namespace `{pod.namespace}`: without a namespaceSelector the rule means "
                f"pods of `{policy_namespace}` only"
            )
            found.append(Obstacle("namespace", text, _NAMESPACE, MoveTo(policy_namespace)))
    else:
        found += _namespace_obstacles(peer.namespaces, other, pod.namespace)
    if peer.pods is not None:
        found += selector_obstacles(peer.pods, pod.labels, f"the {other.role} pod", "pod")
    return tuple(found)


def _namespace_obstacles(selector: Selector, other: Other, name: str) -> list[Obstacle]:
    for test in selector.tests:
        if test.key == NAMESPACE_NAME_LABEL and not test.absent and not test.inverted and name not in test.values:
            wanted = _alternatives(test.values)
            text = f"the {other.role} pod is in namespace `{name}`, the rule wants namespace {wanted}"
            move = MoveTo(test.values[0]) if test.values else None
            typo = any(alike(name, value) for value in test.values)
            return [Obstacle("namespace", text, _TYPO + 0.3 if typo else _NAMESPACE, move)]
    return selector_obstacles(selector, other.namespace_labels, f"namespace `{name}`", "namespace")


def selector_obstacles(selector: Selector, labels: Labels, who: str, of: Literal["pod", "namespace"]) -> list[Obstacle]:
    """Each test of `selector` that `labels` fail. `who` opens the sentence: "the source pod"."""
    if selector.is_nothing:
        return [Obstacle("selects nothing", "its selector contradicts itself and selects nothing", _NOTHING)]
    kind: Kind = "label" if of == "pod" else "namespace label"
    found = []
    for test in selector.tests:
        value = labels.get(test.key)
        if not test.admits(value):
            text, near = _label_text(test, value, labels, who)
            found.append(Obstacle(kind, text, _TYPO if near else _LABEL, SetLabel(of, test.key, _wanted(test))))
    return found


def _wanted(test: KeyTest) -> str | None:
    """A value that the test admits."""
    if test.absent:
        return None
    if not test.inverted:
        return test.values[0]
    value = "x"
    while value in test.values:
        value += "x"
    return value


def _label_text(test: KeyTest, value: str | None, labels: Labels, who: str) -> tuple[str, bool]:
    """In words, and whether it looks like a slip of the pen."""
    key = test.key
    if test.absent:
        if test.inverted:
            return f"{who} has `{key}: {value}`, the rule wants any `{key}` but {_alternatives(test.values)}", False
        return f"{who} has the label `{key}: {value}`, the rule wants none called `{key}`", False
    if test.inverted:
        wanted = f"some value of `{key}`" + (f" but {_alternatives(test.values)}" if test.values else "")
    elif len(test.values) == 1:
        wanted = f"`{key}: {test.values[0]}`"
    else:
        wanted = f"`{key}` to be {_alternatives(test.values)}"
    if value is not None:
        near = any(alike(value, each) for each in test.values) and not test.inverted
        return f"{who} has `{key}: {value}`, the rule wants {wanted}", near
    # A key that is nearly this one, with a value that would do, is a misspelt key.
    misspelt = next((each for each in labels if alike(each, key) and test.admits(labels[each])), None)
    if misspelt is not None:
        return f"{who} has `{misspelt}: {labels[misspelt]}`, the rule wants {wanted}", True
    return f"{who} has no label `{key}`, the rule wants {wanted}", False


def alike(one: str, other: str) -> bool:
    """Whether two names may be one, misspelt."""
    if one.lower() == other.lower() or sorted(one) == sorted(other):
        return True
    shorter, longer = sorted((len(one), len(other)))
    # No more of the two can be alike than the shorter one has, or than letters they share.
    shared = sum(min(one.count(char), other.count(char)) for char in set(one))
    if shorter < 3 or 2 * shared < _ALIKE * (shorter + longer):
        return False
    from difflib import SequenceMatcher  # slow to import, and rarely needed

    return SequenceMatcher(None, one, other).ratio() >= _ALIKE


def _alternatives(values: Sequence[str]) -> str:
    shown = [f"`{value}`" for value in values[:4]] + (["…"] if len(values) > 4 else [])
    return " or ".join(shown) or "nothing"


def _block_obstacles(block: IPBlock, other: Other) -> tuple[Obstacle, ...]:
    address = other.address
    change = UseAddress(str(block.cidr), tuple(map(str, block.excepts)))
    cost = _BLOCK if other.pod is None else _BLOCK_FOR_POD
    if address is None:
        text = f"whether the {other.role}'s address, which is not known yet, is in {block.cidr} can't be said"
        return (Obstacle("block", text, cost, change),)
    whole = Prefix(address.family, address.value, 32 if address.family == 4 else 128)
    if not block.cidr.contains(whole):
        text = f"the {other.role}'s address {address} is not in {block.cidr}"
        return (Obstacle("block", text, cost, change),)
    for excepted in block.excepts:
        if excepted.contains(whole):
            text = f"the {other.role}'s address {address} is in {excepted}, which the rule excepts from {block.cidr}"
            return (Obstacle("except", text, _EXCEPT if other.pod is None else _BLOCK_FOR_POD, change),)
    return ()


def _port_obstacles(port: Port, ports: Sequence[Port], asked: Asked) -> tuple[Obstacle, ...]:
    """Why one entry of `ports` does not match: one obstacle, or none where it does. `ports` are all of the rule's."""
    found = _port_obstacle(port, ports, asked)
    return (found,) if found else ()


def _port_obstacle(port: Port, ports: Sequence[Port], asked: Asked) -> Obstacle | None:
    if asked.protocol not in ("TCP", "UDP", "SCTP"):
        return Obstacle("icmp", f"the rule has ports, and a rule with ports allows no {asked.protocol}", _NUMBER)
    allowed = f"the rule allows {', '.join(map(port_text, ports))}"
    flow = f"{asked.port}/{asked.protocol}"
    if isinstance(port.port, str):
        return _named_port_obstacle(port.protocol, port.port, asked)
    low, high = (1, 65535) if port.port is None else (port.port, port.end or port.port)
    if low <= asked.port <= high:
        if port.protocol == asked.protocol:
            return None
        only = f"port {asked.port} is {port.protocol} only" if port.port is not None else allowed
        return Obstacle(
            "protocol", f"{only}, the flow is {asked.protocol}", _PROTOCOL, UsePort(port.protocol, asked.port)
        )
    if port.protocol == asked.protocol and low <= asked.service_port <= high:
        text = f"port {asked.service_port} is the Service's: policies see the pod's port, which is {asked.port}"
        return Obstacle("service port", text, _SERVICE_PORT, UsePort(port.protocol, low))
    cost = _NUMBER + (_PROTOCOL if port.protocol != asked.protocol else 0.0)
    return Obstacle("port", f"{allowed}, not {flow}", cost, UsePort(port.protocol, low))


def _named_port_obstacle(protocol: Protocol, name: str, asked: Asked) -> Obstacle | None:
    pod, flow = asked.pod, f"{asked.port}/{asked.protocol}"
    if pod is None or not pod.selectable:
        text = f"port `{name}` is a name, which only a pod's ports have; the destination is no pod that policies see"
        return Obstacle("named port", text, _NO_POD)
    called = [port for port in pod.ports if port.name == name]
    same = [port for port in called if port.protocol == protocol]
    if any(port.port == asked.port for port in same) and protocol == asked.protocol:
        return None
    if same:
        at = ", ".join(f"{port.port}/{port.protocol}" for port in same)
        text = f"port `{name}` is {at} at the destination pod, not {flow}"
        return Obstacle("named port", text, _NUMBER, UsePort(protocol, same[0].port))
    if called:
        text = f"the rule wants port `{name}` of {protocol}, which is {called[0].protocol} at the destination pod"
    else:
        names = ", ".join(f"`{port.name}` ({port.port}/{port.protocol})" for port in pod.ports if port.name)
        text = f"the destination pod declares no port `{name}`; it declares {names or 'no named port'}"
    if protocol != asked.protocol:
        return Obstacle("named port", f"{text}, and the flow is {asked.protocol}", _NUMBER + _PROTOCOL)
    near = any(alike(name, port.name) for port in pod.ports if port.name)
    change = DeclarePort(name, protocol, asked.port)
    return Obstacle("named port", text, _TYPO if near else _NUMBER, change)


def port_text(port: Port) -> str:
    """One entry of `ports`, in words."""
    if port.port is None:
        return f"every {port.protocol} port"
    if isinstance(port.port, int) and port.end is not None and port.end != port.port:
        return f"{port.port}-{port.end}/{port.protocol}"
    return f"{port.port}/{port.protocol}" if isinstance(port.port, int) else f"`{port.port}`/{port.protocol}"
