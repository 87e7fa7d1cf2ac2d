"""Many requests to an OpenAI-compatible server over real HTTP: what fails is asked again or named, nothing is lost."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from openai_server import (
    KEY,
    Call,
    OpenAIServer,
    Reply,
    broken,
    broken_json,
    echo,
    failed,
    late,
    no_choices,
    not_json,
    openai_server,
    rate_limited,
    refusal,
    said,
)

from clha_core.endpoint import Answer, Endpoint, Request, usage_of
from clha_core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def ask(question: str, **changes: object) -> Request:
    return Request("tiny-1", [{"role": "user", "content": question}], **{"max_tokens": 8, **changes})  # type: ignore[arg-type]


QUESTIONS = [ask(f"question {number}") for number in range(6)]


@pytest.fixture
def endpoint_of(tmp_path: Path) -> Callable[..., Endpoint]:
    def make(server: OpenAIServer, **options: object) -> Endpoint:
        return Endpoint(server.url, KEY, tmp_path / "replies.sqlite", **options)  # type: ignore[arg-type]

    return make


def first_then(fault: Reply, text: str = "Fine.") -> Callable[[Call], Reply]:
    """One fault for every question, then an answer."""
    return lambda call: fault if call.nth == 0 else said(text)


def test_answers_come_in_the_order_of_the_requests(endpoint_of: Callable[..., Endpoint]) -> None:
    def slower_first(call: Call) -> Reply:
        return Reply(echo(call).body, delay=0.2 if call.asked == "question 0" else 0.0)

    with openai_server(slower_first) as server:
        answers = endpoint_of(server).complete(QUESTIONS)
    assert [answer.text for answer in answers] == [f"You asked: question {n} (seed None)" for n in range(6)]
    assert {answer.model for answer in answers} == {"tiny-1-0613"}


def test_what_is_sent_is_what_was_asked(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server() as server:
        endpoint_of(server).complete([ask("why", temperature=0.5, seed=3, options={"top_p": 0.9})])
    assert server.calls[0].body == {
        "model": "tiny-1",
        "messages": [{"role": "user", "content": "why"}],
        "max_tokens": 8,
        "temperature": 0.5,
        "seed": 3,
        "top_p": 0.9,
    }


def test_no_more_requests_are_under_way_than_allowed(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: Reply(echo(call).body, delay=0.05)) as server:
        endpoint_of(server, concurrency=3).complete([ask(str(number)) for number in range(12)])
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    "fault", [rate_limited(), broken(), late(2.0), not_json(), broken_json(), no_choices(), failed(200, "overloaded")]
)
def test_what_may_pass_is_asked_again(endpoint_of: Callable[..., Endpoint], fault: Reply) -> None:
    with openai_server(first_then(fault)) as server:
        (answer,) = endpoint_of(server, timeout=0.3).complete([ask("why")])
    assert (answer.text, answer.error) == ("Fine.", None)
    assert len(server.calls) == 2


def test_retry_after_is_heeded(endpoint_of: Callable[..., Endpoint]) -> None:
    times = []

    def answer(call: Call) -> Reply:
        times.append(time.monotonic())
        return first_then(rate_limited(retry_after=1.2))(call)

    with openai_server(answer) as server:
        endpoint_of(server).complete([ask("why")])
    assert 1.2 <= times[1] - times[0] < 5  # the pause before a first retry is half a second otherwise


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (rate_limited(0.01), "rate_limited"),
        (failed(503, "down", headers={"Retry-After": "0.01"}), "server_error"),
        (late(1.0), "timeout"),
        (failed(400, "the prompt is too long"), "rejected"),
        (failed(403, "flagged"), "rejected"),
        (not_json(), "bad_reply"),
        (no_choices(), "bad_reply"),
        (Reply('{"choices": [{"message": {"role": "assistant", "content": "\\ud83d"}}]}'), "bad_reply"),
        (refusal(), "refused"),
        (said(None, finish_reason="content_filter"), "refused"),
    ],
)
def test_what_fails_for_good_is_returned_with_its_reason(
    endpoint_of: Callable[..., Endpoint], reply: Reply, error: str
) -> None:
    with openai_server(lambda call: reply if call.asked == "bad" else echo(call)) as server:
        good, bad = endpoint_of(server, max_retries=1, timeout=0.25).complete([ask("good"), ask("bad")])
    assert good.error is None
    assert (bad.error, bad.value) == (error, None)
    assert bad.detail


def test_the_error_that_a_server_sends_is_the_detail(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: echo(call) if call.asked == "good" else failed(400, "prompt too long")) as server:
        _, bad = endpoint_of(server).complete([ask("good"), ask("bad")])
    assert "prompt too long" in bad.detail


def test_a_reply_that_does_not_parse_is_asked_again_with_another_seed(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: said("eight" if call.nth < 2 else "8")) as server:
        (answer,) = endpoint_of(server).complete([ask("rate", seed=5)], parse=int)
    assert (answer.text, answer.value, answer.error) == ("8", 8, None)
    assert [call.body["seed"] for call in server.calls] == [5, 6, 7]
    assert answer.prompt_tokens == 30  # all three were paid for


def test_what_never_parses_is_returned_and_asked_anew_by_the_next_call(endpoint_of: Callable[..., Endpoint]) -> None:
    replies = iter(["bad", "worse", "8"])
    with openai_server(lambda call: said("1" if call.asked == "good" else next(replies))) as server:
        endpoint = endpoint_of(server)
        _, bad = endpoint.complete([ask("good"), ask("rate")], parse=int, parse_retries=1)
        assert (bad.error, bad.text, bad.value) == ("unparsed", "worse", None)
        assert "worse" in bad.detail
        _, mended = endpoint.complete([ask("good"), ask("rate")], parse=int, parse_retries=1)
    assert (mended.value, mended.prompt_tokens) == (8, 30)


def test_a_better_parser_takes_what_is_on_disk(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: said("8 points" if call.asked == "rate" else "1")) as server:
        endpoint_of(server).complete([ask("good"), ask("rate")], parse=int, parse_retries=0)
        calls = len(server.calls)
        _, answer = endpoint_of(server).complete([ask("good"), ask("rate")], parse=lambda text: int(text.split()[0]))
    assert (answer.value, answer.cached, len(server.calls)) == (8, True, calls)


def test_a_second_call_asks_nothing_and_counts_the_same(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server() as server:
        first = endpoint_of(server).complete(QUESTIONS)
        again = endpoint_of(server).complete(QUESTIONS)
    assert len(server.calls) == len(QUESTIONS)
    assert not any(answer.cached for answer in first)
    assert all(answer.cached for answer in again)
    prices = {"prompt_price": 1.0, "completion_price": 1.0}
    assert usage_of(first, **prices) == usage_of(again, **prices)


def test_equal_requests_are_asked_once_and_numbered_samples_each(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server() as server:
        same = endpoint_of(server).complete([ask("why"), ask("why")])
        assert same[0] == same[1]
        assert len(server.calls) == 1
        endpoint_of(server).complete([ask("why", sample=0), ask("why", sample=1)])
    assert len(server.calls) == 2


def test_the_same_request_to_another_server_is_another_one(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: said("one")) as one, openai_server(lambda call: said("two")) as two:
        assert endpoint_of(one).complete([ask("why")])[0].text == "one"
        assert endpoint_of(two).complete([ask("why")])[0].text == "two"


def test_cost_is_tokens_times_prices_per_million(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: said("four words of answer")) as server:
        usage = usage_of(endpoint_of(server).complete(QUESTIONS), prompt_price=3.0, completion_price=15.0)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.unmetered) == (60, 24, 0)
    assert usage.cost == pytest.approx((60 * 3.0 + 24 * 15.0) / 1e6)


def test_replies_without_a_count_of_tokens_are_counted_as_such(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: said("Fine.", usage=False)) as server:
        usage = usage_of(endpoint_of(server).complete(QUESTIONS), prompt_price=1.0, completion_price=1.0)
    assert (usage.cost, usage.unmetered) == (0.0, 6)


def test_a_wrong_key_stops_at_once_and_is_not_repeated(endpoint_of: Callable[..., Endpoint], tmp_path: Path) -> None:
    with openai_server() as server, pytest.raises(UserError, match="key") as caught:
        Endpoint(server.url, "sk-wrong-77", tmp_path / "replies.sqlite").complete(QUESTIONS)
    assert "sk-wrong-77" not in str(caught.value)
    assert server.calls == []


def test_an_unknown_model_stops_at_once(endpoint_of: Callable[..., Endpoint]) -> None:
    with openai_server(lambda call: failed(404, "no such model")) as server:
        with pytest.raises(UserError, match=r"'tiny-1'.*no such model"):
            endpoint_of(server, concurrency=1).complete(QUESTIONS)
        assert len(server.calls) == 1


def test_a_spent_quota_stops_at_once(endpoint_of: Callable[..., Endpoint]) -> None:
    spent = failed(429, "check your plan", headers={"Retry-After": "0.01"}, code="insufficient_quota")
    with openai_server(lambda call: spent) as server, pytest.raises(UserError, match="check your plan"):
        endpoint_of(server, concurrency=1, max_retries=1).complete(QUESTIONS)


def test_when_everything_fails_the_reasons_are_said(endpoint_of: Callable[..., Endpoint]) -> None:
    with (
        openai_server(lambda call: failed(400, "prompt too long")) as server,
        pytest.raises(UserError, match=r"any of 6 requests \(6 rejected\).*prompt too long"),
    ):
        endpoint_of(server).complete(QUESTIONS)


def test_a_server_that_is_gone_stops_the_run_early_and_keeps_the_answers(endpoint_of: Callable[..., Endpoint]) -> None:
    questions = [ask(str(number)) for number in range(200)]
    down = failed(503, "down", headers={"Retry-After": "0.01"})
    with openai_server(lambda call: echo(call) if int(call.asked) < 10 else down) as server:
        with pytest.raises(UserError, match=r"does not answer.*again when the server is back"):
            endpoint_of(server, concurrency=2, max_retries=0).complete(questions)
        assert len(server.calls) < 50
        server.answer = echo
        before = len(server.calls)
        endpoint_of(server).complete(questions)
    assert len(server.calls) - before == 190


def test_no_server_at_all_is_a_sentence_without_what_is_secret_in_the_url(tmp_path: Path) -> None:
    endpoint = Endpoint("http://user:hidden@127.0.0.1:9/v1?token=secret", KEY, tmp_path / "replies", max_retries=0)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1") as caught:
        endpoint.complete([ask("why")])
    assert not [word for word in ("hidden", "secret", KEY) if word in str(caught.value)]


def test_models_that_name_the_limit_otherwise_get_their_name(endpoint_of: Callable[..., Endpoint]) -> None:
    complaint = failed(400, "use max_completion_tokens", param="max_tokens", code="unsupported_parameter")

    def newer(call: Call) -> Reply:
        return complaint if "max_tokens" in call.body else echo(call)

    with openai_server(newer) as server:
        answers = endpoint_of(server, concurrency=1).complete(QUESTIONS)
    assert not [answer for answer in answers if answer.error]
    assert len(server.calls) == len(QUESTIONS) + 1
    assert server.calls[-1].body["max_completion_tokens"] == 8


def test_address_and_key_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with openai_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name.replace("OPENAI", "JUDGE"), value)
        (answer,) = Endpoint.from_environment(tmp_path / "replies", "JUDGE").complete([ask("why")])
    assert answer.text.startswith("You asked: why")


def test_a_missing_key_names_the_variable_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Endpoint.from_environment(tmp_path / "replies")


def test_hostile_text_is_kept_as_it_is(endpoint_of: Callable[..., Endpoint]) -> None:
    hostile = "'); DROP TABLE replies; --\0 <script>alert(1)</script> \u202e {{ 7 * 7 }} \U0001f600"
    with openai_server(lambda call: said(hostile)) as server:
        endpoint_of(server).complete([ask(hostile)])
        (answer,) = endpoint_of(server).complete([ask(hostile)])
    assert (answer.text, answer.cached) == (hostile, True)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "replies").write_text("not a database, and long enough to be looked at" * 100)
    with pytest.raises(UserError, match="replies"):
        Endpoint("http://127.0.0.1:9/v1", KEY, tmp_path / "replies").complete([ask("why")])


KILLED = """
import sys
from pathlib import Path
from clha_core.endpoint import Endpoint, Request
requests = [Request("tiny-1", [{"role": "user", "content": str(n)}], 8) for n in range(30)]
Endpoint.from_environment(Path(sys.argv[1]), concurrency=2).complete(requests)
"""


def test_a_kill_loses_at_most_what_is_under_way(tmp_path: Path) -> None:
    store = tmp_path / "replies"
    answered = 12

    def stuck(call: Call) -> Reply:
        return echo(call) if int(call.asked) < answered else late(60.0)

    with openai_server(stuck) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(store)],
            cwd=ROOT,
            env=os.environ | server.environment | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while len(server.calls) < answered + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with sqlite3.connect(store) as connection:
            kept = [json.loads(reply)["text"] for (reply,) in connection.execute("SELECT reply FROM replies")]
        assert len(kept) == answered
        server.answer = echo
        before = len(server.calls)
        answers: list[Answer] = Endpoint(server.url, KEY, store).complete([ask(str(n)) for n in range(30)])
    assert len(server.calls) - before == 30 - answered
    assert [answer.cached for answer in answers] == [n < answered for n in range(30)]
