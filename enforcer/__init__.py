"""From allow-sets to what a node's kernel holds.

Rule-sets are pure data: layout makes them, render writes them, parse reads them back, plan orders the steps from one to
another, simulate walks a packet through them; attach says which interface is whose. Only `backend`, `iptables`,
`ipset`, `links`, `cni_follow`, `nflog` and `conntrack` touch the host, and only chains and sets with podfence's own
prefixes, and one bit of connection marks, are ever changed. `agent` is who puts it all to work on a node.

What the cluster looks like comes as messages (`news`), from the API server by way of `api` and `watch` or from files by
way of `watch_files`, and `heard` turns them into changes.
"""
