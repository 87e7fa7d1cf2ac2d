"""Turns the output of a command into log lines: progress bars redraw one line, a log keeps every line."""

import codecs
import re
import time
from collections.abc import Callable, Iterator

from clha_core.terminal import printable

BAR_SECONDS = 10.0
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours, and the cursor movements of nested bars


class LineReader:
    """Splits a byte stream into lines; of a line that is redrawn (tqdm's carriage returns), few states are kept.

    A finished line is given in its last state. A line that is still being redrawn is given once in `bar_seconds`,
    so that a long step shows where it is.
    """

    def __init__(self, bar_seconds: float = BAR_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._bar_seconds = bar_seconds
        self._clock = clock
        self._last_bar = clock()
        self._rest = ""

    def feed(self, chunk: bytes, *, final: bool = False) -> Iterator[str]:
        """Lines that `chunk` completes; with `final`, also what is left without a line end."""
        *lines, self._rest = (self._rest + self._decoder.decode(chunk, final=final)).split("\n")
        if final:
            lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            if state := _last_state(line):
                yield state
        if "\r" in self._rest:
            # Earlier states of the line are of no more use; the last may be just begun, so one more is kept.
            self._rest = "\r" + "\r".join(self._rest.split("\r")[-2:])
            if (state := _last_state(self._rest)) and self._clock() - self._last_bar >= self._bar_seconds:
                self._last_bar = self._clock()
                yield state


def _last_state(line: str) -> str:
    plain = TERMINAL_CODES.sub("", line)
    return printable(next((state for part in reversed(plain.split("\r")) if (state := part.rstrip())), ""))
