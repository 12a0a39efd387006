"""Keeps one node's kernel at what was heard: `keep` owns index and dataplane, `host` carries steps out, `repair` undoes
what others did.
"""
