"""What the kernel is asked and told: tables by iptables' programs; sets, connections, logged packets and links by
netlink. Each wire format has a module of its own that opens no socket.
"""
