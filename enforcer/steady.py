"""Threads that go on: a defect that ends one is said, and it begins again. A thread that ended unseen would look like a
node where nothing happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PAUSE = 1.0


def steady(
    run: Callable[[], None],
    name: str,
    complain: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> threading.Thread:
    """A thread, not begun yet, that runs `run` until it returns, and a second later again where it raises. `complain`
    gets one line for each defect, and no more while it is the same."""

    def go_on() -> None:
        said = ""
        while True:
            try:
                return run()
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                if what != said:
                    complain(f"the thread {name} stumbled, and begins again: {what}")
                said = what
            sleep(PAUSE)

    return threading.Thread(target=go_on, name=name, daemon=True)
