"""The namespace `shop` on two nodes, of which tests with real packets take the pods that they need."""

from __future__ import annotations

NODES = """
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDRs: [10.244.2.0/24, "fd00:10:244:2::/64"]}}
"""
API = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 80}]
  egress:
    - to: [{podSelector: {matchLabels: {app: other}}}]
"""


def shop(*pods: tuple[str, str, str]) -> str:
    """The nodes and `pods`: each its name, its label `app` and its node."""
    return "---".join([NODES, *(_pod(*each) for each in pods)])


def _pod(name: str, app: str, node: str) -> str:
    meta = f"{{name: {name}, namespace: shop, labels: {{app: {app}}}}}"
    return f"\n{{apiVersion: v1, kind: Pod, metadata: {meta}, spec: {{nodeName: {node}}}}}\n"
