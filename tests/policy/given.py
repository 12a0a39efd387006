"""Shorthand for these tests: a policy from the YAML of its spec, and what was said of it."""

from __future__ import annotations

import textwrap

from policy.decode import Decoded, read_documents
from policy.model import NetworkPolicy

FILE = "policies/api.yaml"
HEAD = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
"""
PLACE = "NetworkPolicy shop/api: "


def read(text: str, file: str = FILE) -> Decoded:
    return read_documents(textwrap.dedent(text).encode(), file)


def policy_of(spec: str) -> tuple[NetworkPolicy, list[str]]:
    """The policy with `spec`, which starts on line 5, and its problems as `LINE: field: reason`."""
    return policy_in(f"{HEAD}spec:\n{textwrap.indent(textwrap.dedent(spec), '  ')}\n")


def policy_in(text: str) -> tuple[NetworkPolicy, list[str]]:
    decoded = read(text)
    (policy,) = decoded.cluster.policies
    return policy, [said(str(problem)) for problem in decoded.problems]


def said(message: str) -> str:
    assert message.startswith(f"{FILE}:"), message
    return message.removeprefix(f"{FILE}:").replace(PLACE, "")


def understood(policy: NetworkPolicy) -> list[bool]:
    return [rule.understood for rule in (*policy.ingress, *policy.egress)]
