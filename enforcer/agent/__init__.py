"""The node agent: what it hears becomes rules in the kernel, by one thread that owns index and dataplane.

    watches, links, address cache ──► inbox ──► loop (one thread) ──► kernel
                                                  │
                                                  ├──► board ──► /readyz, /metrics, the local socket
                                                  ├──► ender: open connections that may not go on
                                                  └──► reporter: Events, the readiness gate, the startup taint

Other threads only put messages into the inbox, read what the loop has published on the board, or take orders through
a queue of their own. Nothing outside this package imports it but the command line.
"""
