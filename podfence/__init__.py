"""The command line.

Promise: a command imports what it needs when it runs, so that `podfence --help` starts in a tenth of a second and a
laptop without `podfence[node]` can validate, explain and compare.
"""
