"""What the kernel does not take, however often it is asked. Most refusals pass: somebody held a lock, or was at a set
of ours. One that comes again for the same element of a set is about that element, and so about the object it is from.
"""

from __future__ import annotations

from policy.errors import HostRefused, KernelRejected

# With the waits in between, some three seconds.
_TIMES = 4


class Refusals:
    """`elements` were refused time after time since rules last followed."""

    def __init__(self) -> None:
        self.passed()

    def passed(self) -> None:
        """Rules followed."""
        self.elements: frozenset[str] = frozenset()
        self._last = ""
        self._times = 0
        self._new = False

    def failed(self, error: HostRefused) -> None:
        element = error.element if isinstance(error, KernelRejected) else ""
        self._times = self._times + 1 if element == self._last else 1
        self._last = element
        if element and self._times >= _TIMES and element not in self.elements:
            self.elements |= {element}
            self._new = True

    def new(self) -> bool:
        """Whether there is one that nobody has asked about yet."""
        new, self._new = self._new, False
        return new
