"""What the commands of a node find out about its pods' interfaces, and say of those that they don't find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from enforcer.attachment.places import hashed_names
from lab import netns

pytestmark = pytest.mark.kernel
_numbers = count()
HASHED = hashed_names("shop", "doubt")[0]
PODS = "\n---\n".join(
    f"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop}}, spec: {{nodeName: n1}},"
    f" status: {{podIP: {address}, phase: Running}}}}"
    for name, address in (("web", "10.244.1.2"), ("doubt", "10.244.1.3"), ("far", "192.168.0.7"))
)
POLICY = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: none, namespace: shop},
 spec: {podSelector: {}, policyTypes: [Ingress]}}
"""


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """This thread is on a node with pods of every sort; a folder that describes them."""
    node, pods = (f"attached-{os.getpid()}-{next(_numbers)}" for _ in range(2))
    (tmp_path / "all.yaml").write_text(f"{PODS}\n---\n{POLICY}")
    netns.create([node, pods])
    try:
        with netns.inside(node):
            made = [f"link add {name} type veth peer name {name} netns {pods}" for name in ("eth0", "v1", HASHED, "v2")]
            up = [f"link set {name} up" for name in ("eth0", "v1", HASHED, "v2")]
            run("ip", "-batch", "-", stdin="\n".join([*made, *up]))
            run("ip", "addr", "add", "192.168.0.10/24", "dev", "eth0")
            run("ip", "route", "add", "10.244.1.2/32", "dev", "v1", "table", "101")
            run("ip", "route", "add", "10.244.1.3/32", "dev", "v2")
            yield tmp_path
    finally:
        netns.delete([node, pods])


def run(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done


def render(files: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = ("node", "render", "-f", str(files), "--node", "n1", "--family", "4", *more)
    return run(sys.executable, "-m", "podfence", *command)


def test_what_is_found_is_rendered_and_the_rest_is_said(files: Path) -> None:
    done = render(files)
    assert "10.244.1.2,v1" in done.stdout
    assert "10.244.1.3,v2" not in done.stdout
    assert done.stderr == (
        "warning: shop/doubt: more than one interface is said to lead to it: the route to 10.244.1.3: v2; "
        f"named for shop/doubt: {HASHED}, so it stays closed\n"
        "warning: shop/far: no interface of this node leads to 192.168.0.7, which is in the network of eth0: what "
        "macvlan and ipvlan pods send passes only inside the pod's own network namespace, so it stays closed\n"
    )


@pytest.mark.parametrize("settled_by", [("--interface", "shop/doubt=v2"), ("--host-interface", "cali*")])
def test_a_doubt_is_settled_by_an_option(files: Path, settled_by: tuple[str, str]) -> None:
    done = render(files, *settled_by)
    assert "shop/doubt" not in done.stderr
    assert "v2" in done.stdout
