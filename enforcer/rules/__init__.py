"""What one node's rules and sets have to be, and the steps from those that are there. Pure.

`layout` opens with the paths of a packet; `plan` says in which order steps are safe.
"""
