"""The chat server as OpenAI's own client sees it: answers, streams, refusals, and many clients at once."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from chat_server import LIMITS, QUESTION, Pace, client, eventually, running, tiny_engine
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from clha_core.errors import UserError
from clha_core.serving.address import api_key
from clha_core.serving.app import Deployment, Limits
from clha_core.serving.engine import Engine

ASKED: Any = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    deployment = Deployment()
    deployment.engine = engine
    with running(deployment) as address:
        yield address


@pytest.fixture
def pace(engine: Engine) -> Iterator[Pace]:
    made = Pace(engine)
    yield made
    made.lift()


def post(url: str, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20, **options)


def sent(url: str, body: Any) -> socket.socket:
    """A connection over which a chat request was sent; to close it is to go away."""
    data = json.dumps(body).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall("\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data)
    return connection


# --- answers


def test_an_answer_has_text_reason_usage_and_the_version_that_gave_it(url: str) -> None:
    answer = client(url).chat.completions.create(**ASKED)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert (answer.model, answer.system_fingerprint) == ("tiny/1", "f00d")


def test_a_stream_joins_to_the_same_answer(url: str) -> None:
    whole = client(url).chat.completions.create(**ASKED)
    *chunks, last = client(url).chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert last.usage == whole.usage
    assert {chunk.id for chunk in chunks} == {last.id}


def test_a_stream_comes_while_it_is_generated(url: str, pace: Pace) -> None:
    pace.allow(3)
    stream = client(url).chat.completions.create(**ASKED, stream=True)
    text = ""
    while not text:
        text += next(stream).choices[0].delta.content or ""
    assert pace.steps <= 4
    pace.lift()
    assert len(text + "".join(chunk.choices[0].delta.content or "" for chunk in stream)) > len(text)


def test_a_seed_is_an_answer_and_no_seed_is_any(url: str) -> None:
    warm = ASKED | {"temperature": 1.5}

    def text(**changes: Any) -> str:
        return client(url).chat.completions.create(**warm, **changes).choices[0].message.content

    assert text(seed=1) == text(seed=1)
    assert len({text(seed=seed) for seed in range(4)} | {text() for _ in range(4)}) == 8


def test_the_model_is_listed_by_name_and_by_version(url: str) -> None:
    assert [model.id for model in client(url).models.list()] == ["tiny", "tiny/1"]
    assert client(url).models.retrieve("tiny/1").id == "tiny/1"
    assert client(url).chat.completions.create(**ASKED | {"model": "tiny/1"}).model == "tiny/1"
    assert httpx.get(f"{url}/health").json()["model"] == "tiny/1"


# --- refusals


def test_too_many_tokens_are_a_bad_request(url: str) -> None:
    for changes in ({"max_tokens": 96}, {"messages": [{"role": "user", "content": "cat " * 200}]}):
        with pytest.raises(openai.BadRequestError) as refused:
            client(url).chat.completions.create(**ASKED | changes)
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "messages"),
        ({"model": "\ud83d"}, "model"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages"),
    ],
)
def test_what_does_not_fit_is_named(url: str, changes: Any, param: str) -> None:
    body = json.dumps(ASKED | changes)  # httpx could not encode half a character
    answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b"[" * 5000, b'{"model": "tiny", "messages": NaN}']
)
def test_bytes_that_are_no_request_are_a_bad_request(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_neutral_values_of_what_is_not_implemented_are_taken(url: str) -> None:
    neutral: Any = {
        **{"n": 1, "logprobs": False, "top_logprobs": 0, "presence_penalty": 0.0, "frequency_penalty": 0},
        **{"logit_bias": {}, "response_format": {"type": "text"}, "modalities": ["text"], "store": False},
        **{"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "functions": [], "function_call": "none"},
        **{"service_tier": "auto", "reasoning_effort": "none", "verbosity": "medium"},
        **{"user": "me", "safety_identifier": "me", "metadata": {"run": "1"}, "prompt_cache_key": "me"},
    }
    plain = client(url).chat.completions.create(**ASKED)
    assert client(url).chat.completions.create(**ASKED, **neutral).choices == plain.choices
    for choice in ("auto", "none"):
        assert post(url, ASKED | {"tool_choice": choice, "function_call": choice}).status_code == 200


def test_null_is_the_same_as_no_field(url: str) -> None:
    fields = set(CompletionCreateParamsBase.__annotations__) - {*ASKED} | {"stream"}
    assert post(url, ASKED | dict.fromkeys(fields)).json()["choices"] == post(url, ASKED).json()["choices"]


def test_an_answer_is_a_message_of_the_next_request(url: str) -> None:
    answer = client(url).chat.completions.create(**ASKED).choices[0].message
    assert client(url).chat.completions.create(**ASKED | {"messages": [*QUESTION, answer, *QUESTION]}).choices


def test_another_model_is_not_found(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="'tiny' is"):
        client(url).chat.completions.create(**ASKED | {"model": "gpt-4o"})
    with pytest.raises(openai.NotFoundError):
        client(url).models.retrieve("tiny/2")


def test_a_large_body_is_refused_whether_announced_or_not(url: str) -> None:
    large = ASKED | {"messages": [{"role": "user", "content": "x" * LIMITS.max_body}]}
    assert post(url, large).status_code == 413
    data = json.dumps(large).encode()
    pieces = iter([data[start : start + 1000] for start in range(0, len(data), 1000)])
    answer = httpx.post(
        f"{url}/v1/chat/completions", content=pieces, headers={"Content-Type": "application/json"}, timeout=20
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_while_the_model_is_loading_the_server_says_so() -> None:
    with running(Deployment()) as url:
        assert httpx.get(f"{url}/health").status_code == 503
        answer = post(url, ASKED)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["code"] == "model_loading"


def test_a_failure_of_the_server_is_an_error_without_details(
    url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(engine, "model", fail)
    answer = post(url, ASKED)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    with pytest.raises(openai.APIError, match="log says why"):
        list(client(url).chat.completions.create(**ASKED, stream=True))


# --- who may ask


def test_a_key_is_asked_for_where_there_is_one(engine: Engine) -> None:
    deployment = Deployment()
    deployment.engine = engine
    with running(deployment, key="s3cret-é") as url:
        assert httpx.get(f"{url}/health").status_code == 200
        for wrong in ("other", "s3cret"):
            with pytest.raises(openai.AuthenticationError):
                client(url, wrong).models.list()
        with pytest.raises(openai.AuthenticationError):
            client(url, "other").chat.completions.create(**ASKED)
        right = {"Authorization": "Bearer s3cret-é".encode()}
        assert post(url, ASKED, headers=right).status_code == 200


def test_without_a_key_only_loopback_names_are_answered(url: str) -> None:
    for other in ("attacker.example", "127.0.0.1.attacker.example", "127.0.0.1@attacker.example", "192.168.1.2:80"):
        assert httpx.get(f"{url}/v1/models", headers={"Host": other}).status_code == 400
    for own in ("127.0.0.1", "localhost:1", "LocalHost", "[::1]:8000"):
        assert httpx.get(f"{url}/v1/models", headers={"Host": own}).status_code == 200
    # What a page may send without asking first is no JSON.
    form = httpx.post(f"{url}/v1/chat/completions", content=json.dumps(ASKED), headers={"Content-Type": "text/plain"})
    assert form.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.7", "localhost"])
def test_a_server_is_reached_where_it_listens(engine: Engine, host: str) -> None:
    deployment = Deployment()
    deployment.engine = engine
    with running(deployment, host=host) as url:
        assert client(url).models.list().data


def test_an_open_address_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLHA_SERVE_API_KEY", raising=False)
    assert [api_key(host) for host in ("127.0.0.1", "127.0.0.7", "::1", "localhost")] == [None] * 4
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(UserError, match="CLHA_SERVE_API_KEY"):
            api_key(host)
    monkeypatch.setenv("CLHA_SERVE_API_KEY", "secret")
    assert api_key("0.0.0.0") == "secret"


# --- many at once


def test_more_than_running_and_waiting_are_refused_at_once(url: str, pace: Pace) -> None:
    with ThreadPoolExecutor(LIMITS.running + LIMITS.waiting) as pool:
        taken = [
            pool.submit(client(url).chat.completions.create, **ASKED) for _ in range(LIMITS.running + LIMITS.waiting)
        ]
        refusals: list[openai.RateLimitError] = []

        def refused() -> bool:
            try:
                client(url).with_options(timeout=0.5).chat.completions.create(**ASKED)
            except openai.RateLimitError as error:
                refusals.append(error)
            except openai.APITimeoutError:
                pass
            return bool(refusals)

        eventually(refused)
        assert refusals[0].response.headers["Retry-After"] == "1"
        assert refusals[0].code == "rate_limit_exceeded"
        pace.lift()
        assert len({future.result().choices[0].message.content for future in taken}) == 1


def test_as_many_are_answered_at_once_as_is_said(engine: Engine, pace: Pace) -> None:
    deployment, many = Deployment(), 48  # more than a server has threads by default
    deployment.engine = engine
    with running(deployment, Limits(running=many, waiting=0, max_body=20_000)) as url, ExitStack() as connections:
        for _ in range(many):
            connections.enter_context(sent(url, ASKED))
        eventually(lambda: pace.most_at_once == many)
        pace.lift()


def test_answers_at_the_same_time_are_those_that_each_gets_alone(url: str) -> None:
    def text(seed: int) -> str:
        asked = ASKED | {"temperature": 1.0, "seed": seed}
        return client(url).chat.completions.create(**asked).choices[0].message.content

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(text, range(4))) == [text(seed) for seed in range(4)]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_not_answered_on(url: str, pace: Pace, stream: bool) -> None:
    with sent(url, ASKED | {"max_tokens": 60, "stream": stream}):
        pace.allow(2)
        eventually(lambda: pace.steps == 2)
    threading.Event().wait(0.3)  # the server hears of it
    pace.allow(1000)
    threading.Event().wait(0.3)
    assert pace.steps <= 4
    pace.lift()
    with ThreadPoolExecutor(4) as pool:  # its place is free again
        assert all(pool.map(lambda _: post(url, ASKED).status_code == 200, range(4)))


@pytest.mark.parametrize("stream", [True, False])
def test_a_place_is_taken_until_the_step_of_a_client_that_went_away_ends(url: str, pace: Pace, stream: bool) -> None:
    for _ in range(3 * LIMITS.running):
        with sent(url, ASKED | {"stream": stream}):
            threading.Event().wait(0.1)
        threading.Event().wait(0.05)  # the server hears of it
    assert pace.most_at_once == LIMITS.running
    pace.lift()
    eventually(lambda: post(url, ASKED).status_code == 200)


def test_one_who_waits_and_goes_away_leaves_the_queue(url: str, pace: Pace) -> None:
    hasty = client(url).with_options(timeout=0.3)
    for _ in range(3 * (LIMITS.running + LIMITS.waiting)):
        with pytest.raises(openai.APITimeoutError):  # never RateLimitError
            hasty.chat.completions.create(**ASKED)
        pace.allow(2)  # whoever runs ends the step that it is in
    pace.lift()
    assert post(url, ASKED).status_code == 200


def test_no_prompt_is_in_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        post(url, ASKED)
    assert "basil" not in caplog.text
