"""Which interface of the node leads to which pod, whatever plugin made it."""
