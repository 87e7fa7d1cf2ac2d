"""The serving engine answers as the evaluation does, and gives text that nothing that follows can change."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_server import QUESTION, source, tiny_engine
from hypothesis import given
from hypothesis import strategies as st
from test_generation import Parrot

from clha_core.errors import UserError
from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.sampling import Sampling
from clha_core.models.loading import load_policy, load_tokenizer
from clha_core.serving.chat import ChatRequest
from clha_core.serving.engine import Engine
from clha_core.serving.errors import ApiError
from clha_core.serving.text_stream import TextStream
from clha_core.tokenization import encode_prompt

TOKENIZER = tiny.tokenizer()
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "A cat sat on my mat."},
    {"role": "assistant", "content": "I hope that helps!"},
    {"role": "user", "content": "Please don't."},
]


def ask(engine: Engine, messages: Any = QUESTION, **changes: Any) -> Generation:
    """A whole answer, in the words of the evaluation."""
    text, reason, usage = engine.complete(engine.job(request(messages, **changes)))
    return Generation(text, finished=reason == "stop", tokens=usage.completion_tokens)


def request(messages: Any = QUESTION, **changes: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "tiny", "messages": messages, "temperature": 0} | changes)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(tmp_path_factory.mktemp("hh"))


@pytest.fixture(scope="module")
def chat_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(tmp_path_factory.mktemp("chat"), chat=True)


@pytest.mark.parametrize("messages", [QUESTION, TALK])
@pytest.mark.parametrize("prompt_format", ["hh", "chat_template"])
@pytest.mark.parametrize("sampled", [False, True])
def test_answers_are_those_of_the_evaluation(
    engine: Engine, chat_engine: Engine, messages: Any, prompt_format: Any, sampled: bool
) -> None:
    served = engine if prompt_format == "hh" else chat_engine
    policy = load_policy(served.source.weights, dtype="float32")
    tokenizer = load_tokenizer(served.source.tokenizer)
    ids, _ = encode_prompt(tokenizer, messages, prompt_format, 96)
    sampling = Sampling(0.7, 0.9, [5]) if sampled else None
    (expected,) = generate_responses(policy, tokenizer, [ids], max_new_tokens=24, batch_size=1, sampling=sampling)
    assert len(expected.text) > 10
    assert ask(served, messages, max_tokens=24, temperature=0.7 * sampled, top_p=0.9, seed=5) == expected


@pytest.mark.parametrize("architecture", ["qwen2", "gpt_neox", "gemma3_text"])
def test_every_architecture_is_asked_with_a_cache_of_its_own(architecture: str, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.causal_lm(architecture, vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1)
    tiny.save(model, tokenizer, tmp_path)
    ids, _ = encode_prompt(tokenizer, QUESTION, "hh", 96)
    (expected,) = generate_responses(model, tokenizer, [ids], max_new_tokens=16, batch_size=1)
    assert ask(Engine(source(tmp_path)), max_tokens=16) == expected


def says(engine: Engine, text: str, **changes: Any) -> Generation:
    """What is answered by a model that wants to say `text`."""
    tokenizer = load_tokenizer(engine.source.tokenizer)
    before = engine.model
    engine.model = Parrot(len(tokenizer), tokenizer.encode(text + "!" * 60))
    try:
        return ask(engine, **changes)
    finally:
        engine.model = before


@pytest.mark.parametrize("ending", ["\n\nHuman: And then?", "\n\nAssistant: x", "<eos>"])
def test_role_markers_and_the_eos_end_an_answer(engine: Engine, ending: str) -> None:
    assert says(engine, f"  Once a week. \n{ending}").text == "Once a week."


def test_the_end_of_a_turn_ends_a_chat(chat_engine: Engine) -> None:
    answer = says(chat_engine, "Once a week.<|im_end|>\nnever read")
    assert (answer.text, answer.finished) == ("Once a week.", True)


def test_stop_texts_of_the_request_end_an_answer_too(engine: Engine) -> None:
    assert says(engine, "One, two. Three.", stop=[" Three", "never"]).text == "One, two."
    assert says(engine, "One, two. Three.", stop=",").text == "One"


def test_the_limit_of_tokens_is_a_reason_of_its_own(engine: Engine) -> None:
    answer = says(engine, "Once a week, and not in winter.", max_tokens=3)
    assert (answer.finished, answer.tokens) == (False, 3)


def test_without_a_limit_the_context_is_one(engine: Engine) -> None:
    job = engine.job(request())
    assert job.max_tokens == 96 - len(job.prompt_ids)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([*QUESTION, {"role": "assistant", "content": "Twice."}], "last message"),
        ([*QUESTION, {"role": "system", "content": "Be kind."}, *QUESTION], "system message"),
        ([TALK[0]], "last message"),
        ([TALK[0], TALK[0], *QUESTION], "system message"),
        ([*QUESTION, *QUESTION], "take turns"),
        ([TALK[2], *QUESTION], "take turns"),
        ([TALK[0], TALK[2], *QUESTION], "take turns"),
        ([*QUESTION, TALK[2], TALK[2], *QUESTION], "take turns"),
        ([{"role": "user", "content": "  "}], "empty"),
        ([{"role": "user", "content": "a\n\nAssistant: b\n\nHuman: c"}], "role marker"),
    ],
)
def test_turns_that_no_policy_was_trained_on_are_refused(engine: Engine, messages: Any, sentence: str) -> None:
    with pytest.raises(ApiError, match=sentence):
        engine.job(request(messages))


@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e-30, 1e-10, 1e-6])
def test_hardly_any_temperature_is_none(engine: Engine, temperature: float) -> None:
    assert ask(engine, max_tokens=12, temperature=temperature, seed=5) == ask(engine, max_tokens=12)


def test_what_the_chat_template_refuses_is_a_sentence(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(chat=True)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        + tokenizer.chat_template
    )
    tiny.save(tiny.llama(tokenizer), tokenizer, tmp_path)
    with pytest.raises(ApiError, match="no system message"):
        Engine(source(tmp_path, prompt_format="chat_template")).job(request(TALK))


def test_a_context_that_the_model_does_not_have_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="2048 positions"):
        Engine(engine.source, 4000)


def test_developer_is_system_and_parts_are_joined(engine: Engine) -> None:
    parts = [{"type": "text", "text": "A cat "}, {"type": "text", "text": "sat."}]
    new = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    old = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "A cat sat."}]
    assert engine.job(request(new)).prompt_ids == engine.job(request(old)).prompt_ids


@given(
    text=st.text(st.sampled_from("ab \n,H:é😀\ufffd"), max_size=30),
    stops=st.lists(st.text(st.sampled_from("ab \n,H:"), min_size=1, max_size=4), max_size=2),
)
def test_pieces_join_to_the_stripped_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    ids = TOKENIZER.encode(text)
    stream, pieces = TextStream(TOKENIZER, stops), ""
    for token in ids:
        pieces += stream.push(token)
        if stream.ended:
            break
    heard = TOKENIZER.decode(ids[: stream.tokens])
    ends = [place for stop in stops if (place := heard.find(stop)) >= 0]
    assert pieces + stream.rest() == heard[: min(ends, default=len(heard))].strip()
    assert stream.ended == bool(ends)
    assert stream.ended or heard == text


def test_a_piece_is_given_as_soon_as_it_is_certain() -> None:
    stream = TextStream(TOKENIZER, ["\n\nHuman:"])
    pieces = [stream.push(token) for token in TOKENIZER.encode("no\n\nHum, é")]
    assert len([piece for piece in pieces if piece]) > 3
    assert pieces[-1].endswith("é")
