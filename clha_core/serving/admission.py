"""How many requests are answered at once, and how many may wait for it."""

import asyncio

from clha_core.serving.errors import busy

RETRY_SECONDS = 1


class Admission:
    """A bounded queue in front of a bounded number of places; of one event loop.

    Args:
        running: requests that generate at once.
        waiting: requests that wait for it, at most; more are refused at once.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self.turn = asyncio.Semaphore(running)  # first come, first served
        self._room = running + waiting
        self._inside = 0

    def enter(self) -> None:
        """Take a place in the queue.

        Raises:
            ApiError: it is full.
        """
        if self._inside >= self._room:
            raise busy(RETRY_SECONDS)
        self._inside += 1

    def leave(self) -> None:
        """Give it back."""
        self._inside -= 1
