"""`podfence lab` with real namespaces: up in one process, probed and taken down by others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "manifests/examples/shop"


@pytest.fixture
def name(podfence) -> Iterator[str]:
    name = f"cli-{os.getpid()}"
    ran = podfence("lab", "up", "-f", SHOP, "--name", name, "--listen", "443")
    assert ran.returncode == 0, ran.stderr
    yield name
    ran = podfence("lab", "down", name)
    assert ran.returncode == 0, ran.stderr
    left = [path.name for path in Path("/run/netns").iterdir() if path.name.startswith(f"pf-{name}.")]
    assert not left


@pytest.mark.kernel
def test_up_probe_down(podfence, name) -> None:
    def probed(*arguments: str) -> list[dict[str, object]]:
        ran = podfence("lab", "probe", *arguments, "--name", name, "-o", "json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    (declared,) = probed("shop/web-0", "shop/api-1", "--port", "9090/tcp")
    assert (declared["outcome"], declared["family"]) == ("open", 4)
    (closed,) = probed("shop/web-0", "fd00:20:2::20", "--port", "9091")
    assert (closed["outcome"], closed["family"]) == ("refused", 6)
    (outside,) = probed("shop/web-0", "outside", "--port", "443/tcp", "-6")
    assert (outside["outcome"], outside["family"]) == ("open", 6)
    everything = probed()
    assert {answer["outcome"] for answer in everything} == {"open"}, "no policy is applied yet"
    assert {answer["family"] for answer in everything} == {4, 6}


@pytest.mark.kernel
def test_down_says_what_it_took_away(podfence, tmp_path) -> None:
    (tmp_path / "pod.yaml").write_text("{apiVersion: v1, kind: Pod, metadata: {name: web}}")
    name = f"down-{os.getpid()}"
    assert podfence("lab", "up", "-f", tmp_path, "--name", name).returncode == 0
    ran = podfence("lab", "down", name, "-o", "json")
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"lab": name, "down": True})


@pytest.mark.kernel
def test_wrong_objects_are_warned_of(podfence, tmp_path) -> None:
    (tmp_path / "pod.yaml").write_text("{apiVersion: v1, kind: Pod, metadata: {name: web, lables: {app: web}}}")
    name = f"wrong-{os.getpid()}"
    ran = podfence("lab", "up", "-f", tmp_path, "--name", name)
    assert podfence("lab", "down", name).returncode == ran.returncode == 0
    assert ran.stderr.startswith("warning: ") and "lables" in ran.stderr


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody who is not root")
def test_without_root_it_says_what_to_paste() -> None:
    reading = "dac_read_search"  # the checkout may be out of nobody's reach
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody += [f"--inh-caps=-all,+{reading}", f"--ambient-caps=+{reading}"]
    podfence = f"{sys.executable} -m podfence"
    refused = run([*nobody, *podfence.split(), "lab", "up", "-f", str(SHOP)])
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr.count("\n") == 1
    _, told, command = refused.stderr.partition("unshare ")
    assert told, refused.stderr
    # Pasted by root, who may read the checkout there: the user namespace is the same.
    typed = f"{podfence} lab up -f {SHOP} && {podfence} lab probe shop/web-0 shop/api-0 --port 8080/tcp"
    pasted = run(["sh", "-c", told + command], typed)
    assert pasted.returncode == 0, pasted.stderr
    assert ": open (" in pasted.stdout
    assert not Path("/run/podfence-lab/lab").exists()


def run(argv: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.kernel
def test_what_a_lab_refuses(podfence, name) -> None:
    taken = podfence("lab", "up", "-f", SHOP, "--name", name)
    assert (taken.returncode, taken.stdout) == (2, "")
    assert f"podfence lab down {name}" in taken.stderr
    nowhere = podfence("lab", "probe", "shop/web-0", "shop/nobody", "--name", name)
    assert nowhere.returncode == 2
    assert "shop/nobody" in nowhere.stderr
    halfway = podfence("lab", "probe", "shop/web-0", "--name", name)
    assert halfway.returncode == 2


@pytest.mark.parametrize("port", ["0", "65536", "80/icmp", "http", "-1", "٣"])
def test_what_is_no_port(podfence, port) -> None:
    ran = podfence("lab", "probe", "a", "b", "--port", port)
    assert ran.returncode == 2
    assert "is not a port" in ran.stderr


def test_a_lab_that_is_not_there(podfence) -> None:
    for arguments in (["probe", "--name", "gone"], ["down", "gone"]):
        ran = podfence("lab", *arguments)
        assert ran.returncode == 2
        assert "gone" in ran.stderr
        assert ran.stderr.count("\n") == 1
