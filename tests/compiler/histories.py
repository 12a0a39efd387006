"""Random histories of a cluster: objects come, go and change in every way that matters, on few names and addresses."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from compiler.changes import Deleted, Event
from policy.decode import decode_objects
from policy.model import Namespace, NetworkPolicy, Pod
from tests.compiler.slow_twin import Objects, happen, identity
from tests.generate import cluster


def objects_of(seed: int) -> list[Event]:
    found = decode_objects(cluster(Random(seed))).cluster
    return [*found.namespaces, *found.pods, *found.policies]


def history(rng: Random, length: int) -> list[Event]:
    """Events, of which each changes an object of before, or says again what is known."""
    pool = [event for _ in range(3) for event in objects_of(rng.randrange(1 << 32))]
    present: Objects = {}
    events: list[Event] = []
    for event in rng.sample(pool, len(pool) // 2):
        happen(present, event)
        events.append(event)
    while len(events) < length:
        event = _next(rng, pool, present)
        happen(present, event)
        events.append(event)
    return events


def _next(rng: Random, pool: list[Event], present: Objects) -> Event:
    kind = rng.random()
    known = [*present.values()]
    if kind < 0.2 or not known:
        return rng.choice(pool)
    target = rng.choice(known)
    if kind < 0.4:
        return Deleted(*identity(target))  # type: ignore[arg-type]
    if isinstance(target, Pod):
        return _changed_pod(rng, target, [each for each in known if isinstance(each, Pod)])
    if isinstance(target, Namespace):
        other = rng.choice([each for each in pool if isinstance(each, Namespace)])
        name_label = {key: value for key, value in target.labels.items() if "/" in key}
        return replace(target, labels={**other.labels, **name_label})
    other_policy = rng.choice([each for each in pool if isinstance(each, NetworkPolicy)])
    fields = rng.sample(("subjects", "isolates", "ingress", "egress"), rng.randint(0, 2))
    return replace(target, **{field: getattr(other_policy, field) for field in fields})


def _changed_pod(rng: Random, pod: Pod, pods: list[Pod]) -> Pod:
    """Now and then it gets another one's address, beside its own or instead."""
    other = rng.choice(pods)
    return replace(
        pod,
        **rng.choice(
            (
                {"labels": dict(other.labels)},
                {"labels": dict(reversed(pod.labels.items()))},
                {"labels": {**pod.labels, "app": rng.choice(("x", "y", "z"))}},
                {"addresses": other.addresses},
                {"addresses": tuple(dict.fromkeys((*pod.addresses, *other.addresses[:1])))},
                {"addresses": ()},
                {"ports": other.ports},
                {"phase": rng.choice(("Pending", "Running", "Succeeded", "Failed"))},
                {"host_network": not pod.host_network},
                {"deleting": not pod.deleting},
                {"node": other.node},
                {"uid": str(rng.random())},
            )
        ),
    )


def batches(rng: Random, events: list[Event], most: int = 6) -> list[list[Event]]:
    found = []
    while events:
        size = rng.randint(1, most)
        found.append(events[:size])
        events = events[size:]
    return found


def undone(events: list[Event]) -> list[Event]:
    """The events that lead back, from the state after `events` to nothing, by way of every state between."""
    present: Objects = {}
    back: list[Event] = []
    for event in events:
        old = present.get(identity(event))
        back.append(old or Deleted(*identity(event)))  # type: ignore[arg-type]
        happen(present, event)
    return back[::-1]
