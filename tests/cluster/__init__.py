"""A real Kubernetes cluster on this machine, for tests: etcd, API server, controllers, scheduler, and nodes with
kubelet, kube-proxy, containerd and CNI plugins, all of them unchanged.

Everything runs in one PID namespace, and each machine of the cluster in network and mount namespaces of its own. So the
host's interfaces, routes, iptables and mounts are never touched, and when the first process of the PID namespace ends,
the kernel ends all others and takes away every interface and mount.

                 control 10.99.0.1: etcd, kube-apiserver, kube-controller-manager, kube-scheduler
                    │ a bridge, in a network namespace as everything here
          ┌─────────┴─────────┐
    node-1 10.99.0.11   node-2 10.99.0.12 …: containerd, kubelet, kube-proxy
      │ veths: pods       │ veths: pods
    10.244.x.0/24       10.244.y.0/24
"""
