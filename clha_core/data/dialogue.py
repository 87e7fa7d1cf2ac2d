"""From one raw preference row to a prompt and its responses: pure parsing, no files.

Understood are HH-RLHF's text ("\\n\\nHuman: ... \\n\\nAssistant: ...") and the formats of TRL's preference datasets:
the prompt implicit in both dialogues or a field of its own, everything as text or as {role, content} messages.
A row that does not fit raises `RowError`, it is never mended in silence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict

# Only a marker splits turns: replies have paragraphs, so blank lines do not.
_MARKER = re.compile(r"\n\n(Human|Assistant):")
_MARKER_AT_START = re.compile(r"\s*(?:Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Turn(TypedDict):
    """One message; `role` is "system" (only as the first), "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Preference:
    """A prompt and its candidate responses.

    Attributes:
        prompt: turns, the last one the user's.
        responses: chosen, rejected, then augmented ones, all different.
        sources: "chosen", "rejected" or "augmented" for each response.
    """

    prompt: list[Turn]
    responses: list[str]
    sources: list[str]


class Reason(StrEnum):
    """Why a row is quarantined."""

    UNREADABLE_LINE = "unreadable_line"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    INVALID_TEXT = "invalid_text"
    UNKNOWN_ROLE = "unknown_role"
    TEXT_BEFORE_FIRST_SPEAKER = "text_before_first_speaker"
    MARKER_IN_CONTENT = "marker_in_content"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    ENDS_WITH_USER = "ends_with_user"
    STARTS_WITH_ASSISTANT = "starts_with_assistant"
    REPEATED_SPEAKER = "repeated_speaker"
    EMPTY_TURN = "empty_turn"
    EMPTY_REPLY = "empty_reply"
    PROMPTS_DIFFER = "prompts_differ"
    EQUAL_REPLIES = "equal_replies"
    PROMPT_IN_TEST = "prompt_in_test"


class RowError(ValueError):
    """A row that cannot be used.

    Attributes:
        reason: machine code.
        detail: a sentence for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def parse_row(row: Mapping[str, Any]) -> Preference:
    """Check a raw row and split it into prompt and responses.

    Args:
        row: "chosen", "rejected", optionally "prompt" and "augmented" (a list of further candidates in the format of
            "chosen"). Other keys are not looked at.

    Raises:
        RowError: the row does not fit; the first problem found.
    """
    given_prompt = None if row.get("prompt") is None else parse_prompt(row["prompt"])
    candidates = [("chosen", _field(row, "chosen")), ("rejected", _field(row, "rejected"))]
    augmented = row.get("augmented") or []
    if not isinstance(augmented, list):
        raise RowError(Reason.WRONG_TYPE, f'"augmented" must be a list, not {_type_name(augmented)}.')
    candidates += [("augmented", value) for value in augmented]

    prompt: list[Turn] | None = given_prompt
    responses: dict[str, None] = {}  # a set in order: a row may bring a hundred thousand
    for source, value in candidates:
        dialogue = _dialogue(value, source, given_prompt)
        _check_dialogue(dialogue, source)
        *turns, reply = dialogue
        if prompt is None:
            prompt = turns
        elif turns != prompt:
            raise RowError(Reason.PROMPTS_DIFFER, f'The turns before the reply of "{source}" are not the prompt\'s.')
        if reply["content"] in responses:
            raise RowError(Reason.EQUAL_REPLIES, f'The reply of "{source}" repeats another one of the row.')
        responses[reply["content"]] = None
    assert prompt is not None  # "chosen" was parsed, so there is one
    _check_encodable([*(turn["content"] for turn in prompt), *responses])
    return Preference(prompt, list(responses), [source for source, _ in candidates])


def split_turns(text: str) -> list[Turn]:
    """Split HH text at its role markers; the content of a turn only loses its outer whitespace.

    Raises:
        RowError: text stands before the first marker.
    """
    # HH text starts with "\n\n", hand-made files often lost it. A pattern that allows for both is four times slower.
    before, *pieces = _MARKER.split("\n\n" + text.lstrip())
    if pieces and before.strip():
        raise RowError(Reason.TEXT_BEFORE_FIRST_SPEAKER, 'Text stands before the first "Human:" or "Assistant:".')
    return [
        {"role": _ROLES[name], "content": content.strip()}  # Turn(...) is the same, later
        for name, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def parse_prompt(value: Any) -> list[Turn]:
    """An explicit prompt; text without markers is one user turn, an open "Assistant:" at its end is dropped.

    Raises:
        RowError: it is neither text nor a list of messages, or holds a role marker where none belongs.
    """
    turns = _turns(value, "prompt")
    if isinstance(value, str):
        if not turns:
            return [Turn(role="user", content=value.strip())]
        if turns[-1] == Turn(role="assistant", content=""):
            turns.pop()
    return turns


def _field(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        raise RowError(Reason.MISSING_FIELD, f'The row has no "{name}".')
    return row[name]


def _dialogue(value: Any, source: str, given_prompt: list[Turn] | None) -> list[Turn]:
    """The whole dialogue of a candidate, which holds it all or, after an explicit prompt, may be the reply alone."""
    if given_prompt is None:
        return _turns(value, source)
    if isinstance(value, str) and not _MARKER_AT_START.match(value):
        if _MARKER.search(value):
            raise RowError(Reason.MARKER_IN_CONTENT, f'The reply of "{source}" contains a role marker.')
        return [*given_prompt, Turn(role="assistant", content=value.strip())]
    turns = _turns(value, source)
    reply_alone = [turn["role"] for turn in turns] == ["assistant"]
    return given_prompt + turns if reply_alone else turns


def _turns(value: Any, field: str) -> list[Turn]:
    if isinstance(value, str):
        return split_turns(value)
    if isinstance(value, list):
        return [_message(message, field) for message in value]
    raise RowError(Reason.WRONG_TYPE, f'"{field}" must be text or a list of messages, not {_type_name(value)}.')


def _message(message: Any, field: str) -> Turn:
    if not isinstance(message, Mapping):
        raise RowError(Reason.WRONG_TYPE, f'A message of "{field}" must be an object, not {_type_name(message)}.')
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise RowError(Reason.WRONG_TYPE, f'A message of "{field}" needs "role" and "content", both text.')
    if role not in ("system", "user", "assistant"):
        raise RowError(
            Reason.UNKNOWN_ROLE, f'A message of "{field}" has the role "{role}": use system, user, assistant.'
        )
    # Such a content would become several turns as soon as the dialogue is written as HH text.
    if _MARKER.search(content):
        raise RowError(Reason.MARKER_IN_CONTENT, f'A message of "{field}" contains a role marker.')
    return Turn(role=role, content=content.strip())


def _check_dialogue(turns: list[Turn], source: str) -> None:
    """Optional system message, then user and assistant by turns, the assistant last; nothing is empty."""
    roles = [turn["role"] for turn in turns]
    if "assistant" not in roles:
        raise RowError(Reason.NO_ASSISTANT_TURN, f'"{source}" has no Assistant turn.')
    if roles[-1] != "assistant":
        raise RowError(Reason.ENDS_WITH_USER, f'"{source}" ends with a turn that is not the Assistant\'s.')
    speakers = roles[1:] if roles[0] == "system" else roles
    if "system" in speakers:
        raise RowError(Reason.UNKNOWN_ROLE, f'"{source}" has a system message that is not its first turn.')
    if speakers[0] == "assistant":
        raise RowError(Reason.STARTS_WITH_ASSISTANT, f'"{source}" starts with the Assistant.')
    # User first and assistant last: speakers alternate exactly when these two slices are uniform.
    if set(speakers[::2]) != {"user"} or set(speakers[1::2]) != {"assistant"}:
        raise RowError(Reason.REPEATED_SPEAKER, f'"{source}" has two turns of one speaker in a row.')
    if not turns[-1]["content"]:
        raise RowError(Reason.EMPTY_REPLY, f'The last Assistant turn of "{source}" is empty.')
    if not all(turn["content"] for turn in turns):
        raise RowError(Reason.EMPTY_TURN, f'"{source}" has an empty turn before its reply.')


def _check_encodable(texts: list[str]) -> None:
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(Reason.INVALID_TEXT, "The text has half a surrogate pair (a broken emoji).") from None


def _type_name(value: Any) -> str:
    return type(value).__name__
