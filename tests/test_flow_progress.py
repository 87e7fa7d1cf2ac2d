"""Logs of progress bars: few lines, and none lost that a program ended itself."""

from hypothesis import given
from hypothesis import strategies as st

from flows.progress import LineReader


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def read(*chunks: bytes) -> list[str]:
    reader = LineReader(clock=Clock())
    lines = [line for chunk in chunks for line in reader.feed(chunk)]
    return lines + list(reader.feed(b"", final=True))


def test_a_bar_that_is_finished_becomes_one_line() -> None:
    assert read(b"\r 0%|  |", b"\r50%|# |\r", b"\r100%|##|\nnext\n") == ["100%|##|", "next"]


def test_a_bar_that_is_still_drawn_is_told_once_in_a_while() -> None:
    clock = Clock()
    reader = LineReader(bar_seconds=10, clock=clock)
    told = []
    for second in range(25):
        clock.now = float(second)
        told += reader.feed(f"\r{second} s".encode())
    assert told == ["10 s", "20 s"]


def test_colours_and_cursor_movements_are_left_out() -> None:
    assert read(b"\x1b[1mbold\x1b[0m\n\x1b[A\n") == ["bold"]


def test_a_last_line_without_an_end_is_not_lost() -> None:
    assert read(b"one\ntwo") == ["one", "two"]


@given(st.lists(st.text(alphabet="aé€😀 ", min_size=1).filter(str.strip)), st.integers(min_value=1, max_value=7))
def test_lines_do_not_depend_on_where_the_stream_is_cut(lines: list[str], size: int) -> None:
    stream = "".join(f"\rearlier\r{line}\n" for line in lines).encode()
    chunks = [stream[place : place + size] for place in range(0, len(stream), size)]
    assert read(*chunks) == [line.rstrip() for line in lines]
