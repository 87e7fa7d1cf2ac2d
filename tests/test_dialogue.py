"""How a raw preference row becomes a prompt and its responses, or is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clha_core.data.dialogue import Reason, RowError, parse_row, split_turns


def hh(*contents: str) -> str:
    """HH text of contents spoken by Human and Assistant by turns."""
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[i % 2]}: {content}" for i, content in enumerate(contents))


def messages(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def reason_of(row: dict[str, Any]) -> Reason:
    with pytest.raises(RowError) as caught:
        parse_row(row)
    assert caught.value.detail.endswith(".")
    return caught.value.reason


SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = {"chosen": hh("Hi", "Hello!"), "rejected": hh("Hi", "Go away.")}


def test_the_prompt_ends_at_the_last_assistant_turn() -> None:
    row = {"chosen": hh("a", "b", "c", "good"), "rejected": hh("a", "b", "c", "bad")}
    preference = parse_row(row)
    assert preference.prompt == messages("a", "b", "c")
    assert preference.responses == ["good", "bad"]
    assert preference.sources == ["chosen", "rejected"]


def test_paragraphs_inside_a_turn_are_kept_exactly() -> None:
    reply = "First.\n\n\n  Second: a list\n\n1. one\nHuman: is only a word here"
    assert parse_row({"chosen": hh("Hi\n\nyou", reply), "rejected": hh("Hi\n\nyou", "no")}).responses[0] == reply


def test_outer_whitespace_of_a_turn_is_dropped() -> None:
    assert parse_row({"chosen": "\n\nHuman:  Hi \n\n\nAssistant:\n yes\n ", "rejected": hh("Hi", "no")}).responses == [
        "yes",
        "no",
    ]


def test_the_first_marker_needs_no_blank_line_before_it() -> None:
    assert parse_row({"chosen": "Human: Hi\n\nAssistant: yes", "rejected": hh("Hi", "no")}).prompt == messages("Hi")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"chosen": hh("q", "x", "p", "yes"), "rejected": hh("q", "x", "p", "no")}, id="implicit-text"),
        pytest.param(
            {"chosen": messages("q", "x", "p", "yes"), "rejected": messages("q", "x", "p", "no")},
            id="implicit-messages",
        ),
        pytest.param(
            {"prompt": hh("q", "x", "p") + "\n\nAssistant:", "chosen": " yes", "rejected": " no"},
            id="explicit-text",
        ),
        pytest.param(
            {
                "prompt": messages("q", "x", "p"),
                "chosen": [{"role": "assistant", "content": "yes"}],
                "rejected": [{"role": "assistant", "content": "no"}],
            },
            id="explicit-messages",
        ),
        pytest.param(
            {"prompt": messages("q", "x", "p"), "chosen": "yes", "rejected": "\n\nAssistant: no"},
            id="explicit-messages-text-replies",
        ),
        pytest.param(
            {
                "prompt": messages("q", "x", "p"),
                "chosen": messages("q", "x", "p", "yes"),
                "rejected": messages("q", "x", "p", "no"),
            },
            id="explicit-and-repeated",
        ),
    ],
)
def test_every_trl_format_of_a_row_means_the_same(row: dict[str, Any]) -> None:
    preference = parse_row(row)
    assert preference.prompt == messages("q", "x", "p")
    assert preference.responses == ["yes", "no"]


def test_an_explicit_prompt_without_markers_is_one_user_turn() -> None:
    assert parse_row({"prompt": "What?", "chosen": "This.", "rejected": "That."}).prompt == messages("What?")


def test_a_system_message_may_come_first() -> None:
    row = {"chosen": [SYSTEM, *messages("p", "yes")], "rejected": [SYSTEM, *messages("p", "no")]}
    assert [turn["role"] for turn in parse_row(row).prompt] == ["system", "user"]


def test_augmented_candidates_follow_chosen_and_rejected() -> None:
    preference = parse_row({**GOOD, "augmented": [hh("Hi", "Yo."), hh("Hi", "Good day.")]})
    assert preference.responses == ["Hello!", "Go away.", "Yo.", "Good day."]
    assert preference.sources == ["chosen", "rejected", "augmented", "augmented"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": hh("Hi", "yes")}, Reason.MISSING_FIELD),
        ({**GOOD, "rejected": None}, Reason.MISSING_FIELD),
        ({**GOOD, "chosen": 3}, Reason.WRONG_TYPE),
        ({**GOOD, "chosen": ["Hi", "yes"]}, Reason.WRONG_TYPE),
        ({**GOOD, "chosen": [{"role": "user", "content": None}]}, Reason.WRONG_TYPE),
        ({**GOOD, "augmented": "more"}, Reason.WRONG_TYPE),
        ({**GOOD, "chosen": hh("Hi", "broken \ud83d")}, Reason.INVALID_TEXT),
        ({**GOOD, "chosen": [{"role": "tool", "content": "x"}, *messages("Hi", "yes")]}, Reason.UNKNOWN_ROLE),
        ({**GOOD, "chosen": [*messages("Hi"), SYSTEM, *messages("Hi", "yes")]}, Reason.UNKNOWN_ROLE),
        ({**GOOD, "chosen": "Note." + hh("Hi", "yes")}, Reason.TEXT_BEFORE_FIRST_SPEAKER),
        ({**GOOD, "chosen": messages("Hi", "yes\n\nHuman: more?")}, Reason.MARKER_IN_CONTENT),
        ({"prompt": "Hi", "chosen": "yes\n\nHuman: more?", "rejected": "no"}, Reason.MARKER_IN_CONTENT),
        ({**GOOD, "chosen": hh("Hi")}, Reason.NO_ASSISTANT_TURN),
        ({**GOOD, "chosen": "no marker at all"}, Reason.NO_ASSISTANT_TURN),
        ({**GOOD, "chosen": ""}, Reason.NO_ASSISTANT_TURN),
        ({**GOOD, "chosen": hh("Hi", "yes", "and?")}, Reason.ENDS_WITH_USER),
        ({**GOOD, "chosen": "\n\nAssistant: yes"}, Reason.STARTS_WITH_ASSISTANT),
        ({**GOOD, "chosen": hh("Hi", "yes") + "\n\nAssistant: really"}, Reason.REPEATED_SPEAKER),
        ({**GOOD, "chosen": "\n\nHuman: You?" + hh("Hi", "yes")}, Reason.REPEATED_SPEAKER),
        ({"prompt": messages("Hi", "yes"), "chosen": "a", "rejected": "b"}, Reason.REPEATED_SPEAKER),
        ({**GOOD, "chosen": hh("Hi", "")}, Reason.EMPTY_REPLY),
        ({**GOOD, "rejected": hh("Hi", " \n ")}, Reason.EMPTY_REPLY),
        ({"prompt": "Hi", "chosen": "yes", "rejected": ""}, Reason.EMPTY_REPLY),
        ({"chosen": hh("Hi", "", "Hello?", "yes"), "rejected": hh("Hi", "", "Hello?", "no")}, Reason.EMPTY_TURN),
        ({**GOOD, "rejected": hh("Hi there", "no")}, Reason.PROMPTS_DIFFER),
        ({"prompt": "Other", **GOOD}, Reason.PROMPTS_DIFFER),
        ({**GOOD, "rejected": GOOD["chosen"] + " "}, Reason.EQUAL_REPLIES),
        ({**GOOD, "augmented": [GOOD["rejected"]]}, Reason.EQUAL_REPLIES),
        ({**GOOD, "augmented": [hh("Hi", "Yo."), hh("Hi", "Yo.")]}, Reason.EQUAL_REPLIES),
        ({**GOOD, "augmented": [hh("Hi", "")]}, Reason.EMPTY_REPLY),
        ({**GOOD, "augmented": [hh("Ho", "Yo.")]}, Reason.PROMPTS_DIFFER),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_refused_with_its_reason(row: dict[str, Any], reason: Reason) -> None:
    assert reason_of(row) is reason


contents = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda text: text == text.strip() and text and "Human:" not in text and "Assistant:" not in text
)


@given(st.lists(contents, min_size=1, max_size=7))
def test_splitting_hh_text_gives_back_the_turns_it_was_made_of(texts: list[str]) -> None:
    assert split_turns(hh(*texts)) == messages(*texts)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
candidates = st.sampled_from([GOOD["chosen"], GOOD["rejected"]]) | json_values


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("prompt", "chosen", "rejected", "augmented"), candidates)))
def test_any_json_object_is_either_a_preference_or_a_row_error(row: dict[str, Any]) -> None:
    try:
        preference = parse_row(row)
    except RowError:
        return
    assert preference.prompt[-1]["role"] == "user"
    assert len(set(preference.responses)) == len(preference.sources) >= 2
