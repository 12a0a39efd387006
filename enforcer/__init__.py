"""From allow-sets to what a node's kernel holds, and back. Each room knows those below it only.

agent         the process on each node: one loop, and everybody who is told how things went
keeping       one node's kernel kept at what was heard; what others do undone
connections   open connections that a change forbids
attachment    which interface leads to which pod
cluster       what the API server or a folder of manifests says
kernel        iptables, ipset, connection table, logged packets, links; below it nothing touches the host
readback      what is installed means; pure
rules         what has to be installed, and the steps there; pure

Only chains and sets with podfence's own prefixes, and one bit of connection marks, are ever changed.
"""
