"""From objects to allow-sets, and from a flow to its verdict.

Promise: everything here is a pure function of its arguments: no clock, thread, socket, file or kernel; an import
contract proves it. What cannot be understood grants nothing.
"""
