"""The text of an answer while it is generated: a piece is given once nothing that follows can change it."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"  # what a decoder gives for a character of which only some bytes are there


class TextStream:
    """Turns tokens into pieces of text that join to what generate_responses gives as the whole.

    Held back are: white space at the end (the answer is stripped), half a character, and what may be the beginning of
    a stop text.

    Args:
        stops: texts that end the answer; it is cut before the first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self.ended = False  # by a stop text
        self.tokens = 0
        self._tokenizer = tokenizer
        self._stops = stops
        self._ids: list[int] = []
        self._given = 0  # characters

    def push(self, token: int) -> str:
        """The text that is certain with one more token."""
        self._ids.append(token)
        self.tokens += 1
        text = self._decoded()
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.ended = True
            return self._give(text[: min(places)].strip())
        whole = text.rstrip(REPLACEMENT)
        return self._give(whole[: len(whole) - self._begun_stop(whole)].strip())

    def rest(self) -> str:
        """What was held back, at the end of an answer that no stop text ended."""
        return "" if self.ended else self._give(self._decoded().strip())

    def _decoded(self) -> str:
        # All of it at every token: what a token adds to a text is not the text of that token.
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _begun_stop(self, text: str) -> int:
        """Characters at the end that a stop text may begin with."""
        lengths = (length for stop in self._stops for length in range(1, len(stop)) if text.endswith(stop[:length]))
        return max(lengths, default=0)

    def _give(self, text: str) -> str:
        piece = text[self._given :]
        self._given = max(self._given, len(text))
        return piece
