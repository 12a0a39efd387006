"""A cluster made of network namespaces, from the same objects that the rest uses, and probes with real packets.

Promise: nothing outside of the lab's own namespaces changes, and all that a lab made is gone when it ends.
"""
