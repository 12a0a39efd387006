#!/bin/sh
# Makes the mounts of one node, in a mount namespace that is already its own, says "ready", and holds it. Nodes share
# the host's file system; what a node writes, or what pods of two nodes would meet in, each has for itself:
#   /run      a tmpfs: sockets of containerd, xtables.lock, netns, podfence
#   /var/lib  a tmpfs: kubelet, containerd, cni. To remove an image's thousands of files from a disk takes a minute
#   /var/log  a folder of the cluster's state: pods' logs
#   /etc      an overlay: hostname, /etc/cni, and which iptables the node has
#   /sys      the node's own network devices in it, and the host's cgroups
# Usage: machine.sh FOLDER NAME legacy|nft
set -eu
folder=$1 name=$2 iptables=$3

mkdir -p "$folder/log" "$folder/etc" "$folder/etc.work"
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns /run/tunables /run/cgroup
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mount --bind "$folder/log" /var/log
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc.work" /etc

mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
rmdir /run/cgroup

# kubelet insists on these. They are the host's, so it reads files of ours instead.
tunable() {
    echo "$2" >"/run/tunables/$1"
    mount --bind "/run/tunables/$1" "/proc/sys/$(echo "$1" | tr . /)"
}
tunable vm.overcommit_memory 1
tunable vm.panic_on_oom 0
tunable kernel.panic 10
tunable kernel.panic_on_oops 1
tunable kernel.keys.root_maxkeys 1000000
tunable kernel.keys.root_maxbytes 25000000

echo "$name" >/proc/sys/kernel/hostname
echo "$name" >/etc/hostname
for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    variant=$(echo "$tool" | sed "s/tables/tables-$iptables/")
    [ ! -e "/etc/alternatives/$tool" ] || ln -sfn "/usr/sbin/$variant" "/etc/alternatives/$tool"
done

# As on a real node, so that mounts reach pods that ask for them.
mount --make-rshared /
echo ready
exec sleep infinity
