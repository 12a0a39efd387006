"""The two sides of a `podfence diff`: files, a git revision, or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from policy.errors import UnknownVerdict, UsageError

if TYPE_CHECKING:
    from policy.model import Cluster

CLUSTER = "cluster:"


class Common(Struct, frozen=True):
    """What both sides share: `paths` are objects that both have; the rest says which cluster, and whether policies that
    the files don't hold are gone from it."""

    paths: tuple[str, ...]
    recursive: bool
    context: str | None
    kubeconfig: str | None
    prune: bool


def read_sides(old: str, new: str, common: Common) -> tuple[Cluster, Cluster]:
    """Both. Beside a cluster, files are what is applied to it: that side is the cluster with the files on top.
    UnknownVerdict where a list could not be read, for then every flow might be another."""
    live = [side == CLUSTER for side in (old, new)]
    if all(live):
        raise UsageError(f"both sides are {CLUSTER}: nothing would differ")
    if not any(live):
        if common.context or common.kubeconfig or common.prune:
            raise UsageError(f"--context, --kubeconfig and --prune are for a side that is {CLUSTER}")
        return _files(old, common), _files(new, common)
    from podfence.cluster import read_cluster
    from podfence.overlay import overlay

    read = read_cluster(common.context, common.kubeconfig, (), "default")
    if read.unseen:
        raise UnknownVerdict(f"what differs can't be known: {'; '.join(read.unseen)}")
    cluster = read.cluster
    if common.paths:
        from podfence.inputs import read_cluster as read_files

        cluster = overlay(cluster, read_files(common.paths, common.recursive).cluster)
    files = _files(new if live[0] else old, replace(common, paths=()))
    applied = overlay(_pruned(cluster, files) if common.prune else cluster, files)
    return (cluster, applied) if live[0] else (applied, cluster)


def _files(side: str, common: Common) -> Cluster:
    from podfence.inputs import read_cluster
    from podfence.revisions import contents, is_revision

    if is_revision(side):
        return read_cluster(common.paths, common.recursive, contents(side, common.recursive)).cluster
    return read_cluster((side, *common.paths), common.recursive).cluster


def _pruned(cluster: Cluster, files: Cluster) -> Cluster:
    """Without the policies that the files don't hold, in the namespaces that they speak of."""
    spaces = {each.namespace for each in files.policies} | {each.name for each in files.namespaces if each.source}
    kept = {each.key for each in files.policies}
    return replace(cluster, policies=[p for p in cluster.policies if p.namespace not in spaces or p.key in kept])
