"""What Prometheus gets to see. Counters and the histogram are fed as things happen, gauges are read off the board, and
denials off the kernel's own counters, when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from enforcer.agent.board import AgentStatus
from enforcer.readback.status import Denied
from policy.model import DIRECTIONS

_LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Each instrument counts from the start of the agent. Names follow prometheus.io/docs/practices/naming."""

    def __init__(self, status: Callable[[], AgentStatus], denied: Callable[[], Iterable[Denied]]) -> None:
        self._registry = CollectorRegistry()
        self.event_to_kernel = self._histogram(
            "podfence_event_to_kernel_seconds", "From hearing of a change to the kernel's last answer, by batch."
        )
        self.flow_ending = Histogram(
            "podfence_flow_ending_seconds",
            "How long it took to end connections, to let them go on (restored), to forget a former owner's (purged).",
            ["stage"],
            buckets=_LATENCIES,
            registry=self._registry,
        )
        self.failed_writes = self._counter(
            "podfence_kernel_writes_failed", "Changes that the kernel refused; each is tried again."
        )
        self.repaired = self._counter(
            "podfence_drift_repaired", "Times that somebody else's change to podfence's rules or sets was undone."
        )
        self.defects = self._counter(
            "podfence_defects", "Times that podfence stumbled over a defect of its own; what was enforced stays."
        )
        self.threads_restarted = self._counter(
            "podfence_threads_restarted", "Helper threads that a defect ended, and that began again."
        )
        self.flows_ended = self._counter("podfence_flows_ended", "Open connections ended since a policy forbids them.")
        self.flows_restored = self._counter("podfence_flows_restored", "Ended connections that a policy allows again.")
        self.denials_lost = self._counter(
            "podfence_denial_logs_lost", "Logged denials that the kernel had no room to hand over."
        )
        self.watch_restarts = Counter(
            "podfence_watch_restarts", "Lists and watches begun anew.", ["kind"], registry=self._registry
        )
        self._registry.register(_Present(status, denied))

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, in the format that the scraper accepts."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_LATENCIES, registry=self._registry)


class _Present:
    """How things are at the moment of the question."""

    def __init__(self, status: Callable[[], AgentStatus], denied: Callable[[], Iterable[Denied]]) -> None:
        self._status = status
        self._denied = denied

    def describe(self) -> Iterable[Any]:
        return ()

    def collect(self) -> Iterator[Any]:
        now = self._status()
        build = GaugeMetricFamily("podfence_build_info", "Version and backend.", labels=["version", "backend"])
        build.add_metric([now.version, now.backend], 1)
        yield build
        yield from (_gauge(*each) for each in _plain(now))
        mode = GaugeMetricFamily("podfence_mode", "The node's mode, 1 for the one it is in.", labels=["mode"])
        for each in ("enforce", "audit", "off"):
            mode.add_metric([each], float(now.mode == each))
        yield mode
        for name, text, counted in (
            ("podfence_rules", "Rules in podfence's chains.", {f: c.rules for f, c in now.kernel.items()}),
            ("podfence_chains", "podfence's chains.", {f: c.chains for f, c in now.kernel.items()}),
            ("podfence_sets", "podfence's sets.", {f: c.sets for f, c in now.kernel.items()}),
            ("podfence_set_entries", "Entries of podfence's sets.", {f: c.entries for f, c in now.kernel.items()}),
        ):
            family = GaugeMetricFamily(name, text, labels=["family"])
            for number, value in counted.items():
                family.add_metric([f"ipv{number}"], value)
            yield family
        isolated = GaugeMetricFamily("podfence_isolated_pods", "Local isolated pods.", labels=["direction"])
        for direction in DIRECTIONS:
            isolated.add_metric([direction], now.isolated.get(direction, 0))
        yield isolated
        trouble = GaugeMetricFamily("podfence_watch_troubled", "1 while a watch can't be relied on.", labels=["kind"])
        for kind in now.troubles:
            trouble.add_metric([kind], 1)
        yield trouble
        yield from self._denials()

    def _denials(self) -> Iterator[Any]:
        denied = CounterMetricFamily(
            "podfence_denied_packets",
            "Packets denied to (ingress) or from (egress) a pod since its rules were made.",
            labels=["direction", "namespace", "pod"],
        )
        totals: dict[tuple[str, str, str], int] = {}
        for each in self._denied():
            namespace, _, name = each.pod.partition("/")
            key = (each.direction, namespace, name)
            totals[key] = totals.get(key, 0) + each.packets
        for labels, packets in totals.items():
            denied.add_metric(labels, packets)
        yield denied


def _plain(now: AgentStatus) -> Iterator[tuple[str, str, float]]:
    yield "podfence_ready", "1 where every kind was heard of and every local pod is programmed.", float(now.ready)
    yield "podfence_opened", "1 while the node is opened by break-glass.", float(bool(now.opened))
    yield "podfence_policies", "NetworkPolicies in the cluster.", now.policies
    yield "podfence_namespaces", "Namespaces in the cluster.", now.namespaces
    yield "podfence_pods", "Pods in the cluster.", now.pods
    yield "podfence_local_pods", "Pods of this node that policies may select.", now.local_pods
    yield "podfence_unattached_pods", "Local pods whose interface is not found; they stay closed.", len(now.unattached)
    yield "podfence_audited_pods", "Local pods whose denials are only counted.", now.audited
    yield "podfence_object_problems", "Objects that can't be understood in whole.", len(now.problems)
    yield "podfence_quarantined_objects", "Objects that podfence can't handle; they are closed.", len(now.quarantined)
    yield (
        "podfence_policies_too_large",
        "Policies of local pods beyond the budget; they are closed.",
        len(now.too_large),
    )
    yield "podfence_stale_seconds", "How old the oldest knowledge of the cluster may be.", now.stale


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
