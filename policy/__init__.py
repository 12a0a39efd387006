"""What the API objects say: structs, selectors, decoding, validation, and the error tree.

Promise: everything here is a pure function of its arguments, bytes in and objects out. No file, socket, clock or
process; an import contract proves it. Absent and empty stay distinct where the API text says so.
"""
