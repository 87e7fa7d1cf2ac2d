"""The terminal, which takes no orders from data.

Names of raters and models, reasons and texts are anybody's. Rich keeps escape sequences that are in a text, and a
terminal obeys them: they move the cursor over what was printed, rename the window, fill the clipboard.
"""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

_BIDI = range(0x202A, 0x202F), range(0x2066, 0x206A)  # they show a text in another order than it has
_SHOWN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_SHOWN |= {code: "\N{REPLACEMENT CHARACTER}" for codes in (range(0x7F, 0xA0), *_BIDI) for code in codes}


def terminal(*, stderr: bool = False) -> Console:
    """A console on which control characters of any text are seen, and not obeyed."""
    console = Console(stderr=stderr)
    console.push_render_hook(_Seen())
    return console


def say(console: Console, sentence: str) -> None:
    """Print a sentence as it is: no markup, no colours of Rich's own, no line breaks of the console's."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """A text with its control characters made visible; line ends and tabs stay."""
    return text.translate(_SHOWN)


class _Seen(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            # Control segments are Rich's own: a spinner moves the cursor.
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
