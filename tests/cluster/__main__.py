"""`python -m tests.cluster up | down`: a cluster that stays until it is taken down, from any process."""

from __future__ import annotations

import argparse
import sys

from tests.cluster.cluster import Cluster, down
from tests.cluster.errors import ClusterFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--name", default="default")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cni", choices=("ptp", "bridge"), default="ptp")
    parser.add_argument("--iptables", choices=("nft", "legacy"), default="nft")
    wanted = parser.parse_args()
    try:
        if wanted.command == "up":
            _up(wanted)
        elif not down(wanted.name):
            print(f"no cluster {wanted.name}")
    except ClusterFailed as failed:
        print(f"podfence: {failed}", file=sys.stderr)
        return 1
    return 0


def _up(wanted: argparse.Namespace) -> None:
    cluster = Cluster(wanted.name, nodes=wanted.nodes, cni=wanted.cni, iptables=wanted.iptables, stays=True)
    cluster.start()
    print(f"{len(cluster.nodes)} nodes Ready after {cluster.started_in:.1f} s")
    print(f"  {cluster.folder / 'kubectl'} get nodes   kubectl, as admin")
    print(f"  {cluster.folder / 'on-node-1'} bash      a shell on a node")
    print(f"  {cluster.kubeconfig}   the kubeconfig, for programs in the cluster's network:")
    print(f"  nsenter --net={cluster.control.place.netns} PROGRAM")
    print("make cluster-down   takes it away")


if __name__ == "__main__":
    sys.exit(main())
