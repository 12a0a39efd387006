"""How long to rest between pieces of work that somebody else gives cause for, such as a pod that forges addresses on a
bridge without end: bursts are done at once, what goes on gets a share of the time. Pure."""

from __future__ import annotations

_SHARE = 0.2
_BURST = 0.25  # seconds of work that need no rest
_LONGEST = 0.25


class Share:
    """`debt` is the work of late, in seconds, that its share of the time has not paid for yet."""

    def __init__(self) -> None:
        self.debt = 0.0
        self._paid_until = 0.0

    def rest(self, began: float, ended: float) -> float:
        """After work from `began` to `ended`: for how many seconds to do none."""
        self.debt = max(0.0, self.debt - (began - self._paid_until) * _SHARE) + (ended - began)
        self._paid_until = ended
        return min(max(0.0, self.debt - _BURST) / _SHARE, _LONGEST)
