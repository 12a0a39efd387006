"""What the index looks up fast, it finds as a scan does: selectors by labels, and classes by terms."""

from __future__ import annotations

from random import Random

import pytest

from compiler.matching import SelectorIndex
from compiler.peers import PodTerm
from compiler.population import Population, name_label
from policy.cidr import Address
from policy.model import Namespace, Pod
from policy.selector import (
    EVERYTHING,
    KeyTest,
    Selector,
    does_not_exist,
    exists,
    in_,
    namespace_named,
    not_in,
    selector,
)

KEYS = ("app", "tier", "env", "zone")
VALUES = ("a", "b", "c", "")


def some_labels(rng: Random) -> dict[str, str]:
    return {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.6}


def some_selector(rng: Random) -> Selector:
    return selector(_test(rng) for _ in range(rng.choice((0, 1, 1, 2, 3))))


def _test(rng: Random) -> KeyTest:
    key, values = rng.choice(KEYS), rng.sample(VALUES, rng.randint(1, 2))
    return rng.choice((in_(key, *values), in_(key, values[0]), not_in(key, *values), exists(key), does_not_exist(key)))


@pytest.mark.parametrize("seed", range(20))
def test_selectors_are_found_by_labels(seed: int) -> None:
    rng = Random(seed)
    index, known = SelectorIndex[int](), set[tuple[Selector, int]]()
    for _ in range(200):
        if known and rng.random() < 0.4:
            gone = rng.choice(sorted(known))
            known.remove(gone)
            index.discard(*gone)
        else:
            entry = some_selector(rng), rng.randrange(5)
            known.add(entry)
            index.add(*entry)
        labels = some_labels(rng)
        found = [value for values in index.matching(labels) for value in values]
        assert sorted(found) == sorted(value for each, value in known if each.matches(labels))
        assert bool(index) is bool(known)


@pytest.mark.parametrize("seed", range(10))
def test_classes_are_found_by_terms(seed: int) -> None:
    """In namespaces with few classes, and in one with more than are worth a scan; while pods come and go."""
    rng = Random(seed)
    population = Population()
    labels = {name: {"env": rng.choice(VALUES), **name_label(name)} for name in ("few", "many", "none")}
    for name, own in labels.items():
        population.declare(name, Namespace(name, own))
    pods: dict[str, Pod] = {}
    for number in range(800):
        own = {**some_labels(rng), "wave": str(number % 60)}
        pod = Pod("many" if number % 4 else "few", f"pod-{number % 400}", own)
        if rng.random() < 0.1:
            population.remove(pod.key)
            pods.pop(pod.key, None)
        else:
            population.put(pod.key, pod)
            pods[pod.key] = pod
        if number % 10 == 0:
            spaces = rng.choice((namespace_named("few"), namespace_named("many"), EVERYTHING, some_selector(rng)))
            term = PodTerm(spaces, some_selector(rng))
            found = [key for known in population.classes_of(term) for key in known.pods]
            assert sorted(found) == sorted(key for key, pod in pods.items() if term.matches(pod, labels[pod.namespace]))
    assert population.class_of.keys() == pods.keys()


def test_nothing_empty_is_kept() -> None:
    """Neither classes nor namespaces nor buckets that nobody is in."""
    rng = Random(0)
    population = Population()
    pods = [Pod("shop", f"pod-{n}", {"wave": str(n)}, addresses=(Address(4, n),)) for n in range(300)]
    for pod in pods:
        population.put(pod.key, pod)
    term = PodTerm(EVERYTHING, selector([in_("wave", "7", "8")]))
    assert len(list(population.classes_of(term))) == 2
    rng.shuffle(pods)
    for pod in pods:
        population.remove(pod.key)
    assert not population.spaces and not population.class_of and not population.pods
    assert not any(population.holders(address) for pod in pods for address in pod.addresses)
    assert population.by_label.candidates(term.pods, 1) == []
