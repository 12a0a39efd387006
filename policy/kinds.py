"""Which objects are ours, which are somebody else's, and which were meant to be ours but do not say so rightly: to
ignore one of those would open what it closes, so each is a problem."""

from __future__ import annotations

from policy.labels import quoted

# Kinds of ours by their group; those that mean nothing here beside those that are read.
_READ = {
    "": {"Namespace", "Node", "Pod", "PodTemplate", "Service"},
    "apps": {"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"},
    "batch": {"CronJob", "Job"},
    "discovery.k8s.io": {"EndpointSlice"},
    "networking.k8s.io": {"NetworkPolicy"},
}
_UNREAD = {
    "": {
        *("Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange", "PersistentVolume"),
        *("PersistentVolumeClaim", "ReplicationController", "ResourceQuota", "Secret", "ServiceAccount", "Status"),
    },
    "apps": {"ControllerRevision"},
    "networking.k8s.io": {"IPAddress", "Ingress", "IngressClass", "ServiceCIDR"},
}
# Other projects' groups with a NetworkPolicy, or a kind that is called much like it.
_OTHERS = frozenset(
    {
        *("crd.projectcalico.org", "projectcalico.org", "cilium.io", "policy.networking.k8s.io", "crd.antrea.io"),
        *("controlplane.antrea.io", "stats.antrea.io", "k8s.cni.cncf.io", "k8s.ovn.org", "networking.gke.io"),
    }
)
_POLICY = "networkpolicy"


def is_foreign(kind: str, api_version: str) -> bool:
    """Whether `kind`, the name of a kind that is read, is another project's there. A group that is misspelt is not
    foreign, and no group is that has not been heard of where the kind is NetworkPolicy."""
    group = _group(api_version)
    if kind == "NetworkPolicy":
        return group in _OTHERS
    if "." not in group or group in _READ:
        return False
    from difflib import get_close_matches  # slow to import, and rarely needed

    return not get_close_matches(group, _READ, cutoff=0.8)


def kind_problem(kind: str, api_version: str) -> str:
    """What is wrong with `kind`, which is none that is read; "" where it is another kind of the API, or of others."""
    if not kind:
        return "missing, expected one such as NetworkPolicy"
    group, folded = _group(api_version), kind.strip().casefold()
    if kind == "List" or group in _OTHERS:
        return ""
    if folded == "list":
        return f"{quoted(kind)} is not read, expected List"
    if api_version and group in _READ:
        known = _READ[group] | _UNREAD.get(group, set())
        if kind in known or kind.removesuffix("List") in known:
            return ""
        return (
            f"{quoted(kind)} is no kind of {quoted(api_version)}, expected one such as {_nearest(folded, _READ[group])}"
        )
    if folded.endswith(_POLICY) and folded != _POLICY:
        return ""  # others' kinds are called so
    candidates = {"NetworkPolicy"} if api_version else set[str]().union(*_READ.values())
    if folded in {each.casefold() for each in candidates} or _close(folded, candidates):
        return f"{quoted(kind)} is not read, expected {_nearest(folded, candidates)}"
    return ""


def is_list(kind: str, api_version: str) -> bool:
    """Whether a `kind` without items was meant as a list of ours; others have kinds such as AllowList."""
    return kind == "List" or (kind.endswith("List") and _group(api_version) in _READ)


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0].strip().casefold()


def _close(folded: str, kinds: set[str]) -> list[str]:
    from difflib import get_close_matches

    by_folded = {kind.casefold(): kind for kind in sorted(kinds)}
    return [by_folded[each] for each in get_close_matches(folded, by_folded, n=1, cutoff=0.8)]


def _nearest(folded: str, kinds: set[str]) -> str:
    return next(iter(_close(folded, kinds)), min(kinds))
