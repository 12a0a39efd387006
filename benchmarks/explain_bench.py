"""Whole runs of `podfence explain` of files, start of the interpreter included, with a bare Python start and a bare
parse of the same bytes beside each. `real_explain` asks an API server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.api_objects import World, namespace, pod, policy
from benchmarks.process import seconds
from benchmarks.record import Figure, Size, figure
from policy.yaml_scalars import resolve

_PORT = ("--port", "8080")
# What a program that only wants the text as values would do, in few words.
_PARSE_JSON = "import sys, msgspec; msgspec.json.decode(open(sys.argv[1], 'rb').read())"
_PARSE_YAML = "import sys, yaml; [*yaml.compose_all(open(sys.argv[1]).read(), yaml.CSafeLoader)]"


class _Dumper(yaml.CSafeDumper):
    """Texts that Kubernetes would read as numbers are quoted, as kubectl quotes them."""


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if resolve(text) == text else '"')


_Dumper.add_representer(str, _text)


def measure(size: Size) -> Iterator[Figure]:
    runs = 9 if size == "full" else 1
    yield figure("python -c pass", [seconds("-c", "pass") * 1000 for _ in range(runs)], "ms")
    with tempfile.TemporaryDirectory() as folder:
        yield from _small(Path(folder), runs)
        yield from _dump(Path(folder), size, runs)


def _small(folder: Path, runs: int) -> Iterator[Figure]:
    """A folder of manifests, as people keep them: 70 pods, 20 policies, 10 namespaces."""
    world = World(70, 20, 14)
    objects = [namespace(world, n) for n in range(world.spaces)] + [policy(world, n) for n in range(20)]
    objects += [pod(world, n) for n in range(70)]
    manifests = folder / "manifests"
    manifests.mkdir()
    for number in range(0, len(objects), 10):
        text = yaml.dump_all([_plain(each) for each in objects[number : number + 10]], Dumper=_Dumper)
        (manifests / f"{number:03}.yaml").write_text(text)
    src, dst = keys(world, 0, 35)
    _explain(src, dst, str(manifests))  # modules are compiled then
    samples = [_explain(src, dst, str(manifests)) * 1000 for _ in range(runs)]
    yield figure(
        "explain of two pods in a folder", samples, "ms", 120, objects=len(objects), pod_bytes=len(pod(world, 0))
    )
    whole = folder / "whole.yaml"
    whole.write_text("---\n".join(path.read_text() for path in sorted(manifests.iterdir())))
    parse = [seconds("-c", _PARSE_YAML, str(whole)) * 1000 for _ in range(runs)]
    yield figure("libyaml composes the same", parse, "ms", objects=len(objects))
    little = folder / "little"
    little.mkdir()
    for path in manifests.iterdir():
        trees = [_little(tree) for tree in yaml.load_all(path.read_text(), yaml.CSafeLoader)]
        (little / path.name).write_text(yaml.dump_all(trees, Dumper=_Dumper))
    samples = [_explain(src, dst, str(little)) * 1000 for _ in range(runs)]
    yield figure("explain of two pods in a folder, as written by hand", samples, "ms", 120, objects=len(objects))


def _dump(folder: Path, size: Size, runs: int) -> Iterator[Figure]:
    """All of a cluster in one file, as `kubectl get -o json` makes it."""
    world = World(10_000, 1_000, 2_000) if size == "full" else World(240, 24, 48)
    objects = [namespace(world, n) for n in range(world.spaces)]
    objects += [policy(world, n) for n in range(world.policies)] + [pod(world, n) for n in range(world.pods)]
    dump, text = folder / "dump.json", folder / "dump.yaml"
    tree = {"apiVersion": "v1", "kind": "List", "items": [_plain(each) for each in objects]}
    dump.write_text(json.dumps(tree, indent=2))
    src, dst = keys(world, 0, world.pods // 2)
    case = {"pods": world.pods, "policies": world.policies, "mb": round(dump.stat().st_size / 1e6)}
    for _ in range(2):
        _explain(src, dst, str(dump))  # the file is in the page cache then
    yield figure(
        "explain in a JSON dump",
        [_explain(src, dst, str(dump)) for _ in range(runs)],
        "s",
        0.5 if size == "full" else None,
        **case,
    )
    yield figure("msgspec decodes the same", [seconds("-c", _PARSE_JSON, str(dump)) for _ in range(runs)], "s", **case)
    text.write_text(yaml.dump(tree, Dumper=_Dumper))
    del tree
    case = {"pods": world.pods, "policies": world.policies, "mb": round(text.stat().st_size / 1e6)}
    ours, bare = [], []
    for _ in range(1):
        bare.append(seconds("-c", _PARSE_YAML, str(text)))
        ours.append(_explain(src, dst, str(text)))
    yield figure("explain in the same as YAML", ours, "s", **case)
    yield figure("libyaml composes that", bare, "s", **case)
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    yield figure("explain in YAML, against composing it", ratios, "ratio", 1.5, **case)


def _plain(text: bytes) -> object:
    return json.loads(text)


def _little(tree: dict[str, dict[str, object]]) -> object:
    """What a person would write of it."""
    if tree["kind"] != "Pod":  # type: ignore[comparison-overlap]
        return tree
    meta, spec, status = tree["metadata"], tree["spec"], tree["status"]
    containers = [{"name": "main", "image": "i", "ports": c["ports"]} for c in spec["containers"]]  # type: ignore[attr-defined]
    kept = {key: meta[key] for key in ("name", "namespace", "labels")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": kept,
        "spec": {"nodeName": spec["nodeName"], "containers": containers},
        "status": {"phase": "Running", "podIP": status["podIP"]},
    }


def keys(world: World, *numbers: int) -> tuple[str, ...]:
    """What the pods of these numbers are called."""
    metas = [json.loads(pod(world, number))["metadata"] for number in numbers]
    return tuple(f"{meta['namespace']}/{meta['name']}" for meta in metas)


def _explain(src: str, dst: str, path: str) -> float:
    return seconds("-m", "podfence", "explain", src, dst, *_PORT, "-f", path)
