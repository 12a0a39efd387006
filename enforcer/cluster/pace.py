"""How fast the API server is asked, and how seldom where it does not answer well. Pure; chance is a parameter."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct


class Pace(Struct, frozen=True):
    """How fast and how long, in seconds but for `page`, the objects of a page.

    A watch asks to last for a time between `shortest` and `longest`, so that a thousand nodes come back at different
    times. The server has a bookmark to send every minute: `silence` is a connection that is dead, or a server that
    has gone back behind our version. A watch that lasts for `settled` has done well; one that at least brings news
    makes for no more than `forgiven` failures in a row."""

    page: int = 500
    shortest: float = 300
    longest: float = 600
    silence: float = 150
    grace: float = 30
    settled: float = 10
    forgiven: int = 2
    least_wait: float = 0.1
    first_wait: float = 1
    most_wait: float = 30
    longest_retry_after: float = 300
    page_attempts: int = 5

    def lasting(self, chance: Callable[[], float]) -> float:
        """For how long to ask a watch to last."""
        return self.shortest + chance() * (self.longest - self.shortest)

    def delay(self, failures: int, asked: float, chance: Callable[[], float]) -> float:
        """The wait after so many failures in a row: full jitter under a ceiling that doubles. Not shorter than what the
        server has `asked` for, plus up to a tenth, so that those whom it asks alike do not come back together."""
        ceiling = min(self.most_wait, self.first_wait * 2.0 ** min(failures, 16))
        return max(
            self.least_wait + chance() * ceiling,
            min(asked, self.longest_retry_after) * (1 + chance() / 10),
        )


USUAL = Pace()
