"""Candidates of an endpoint, over real HTTP: what comes, what it cost, what failed, and no secret anywhere."""

from pathlib import Path

import pytest
from candidate_cases import MakeParams, metrics_of, origins_of, read, run, write_rows
from openai_server import KEY, Call, OpenAIServer, Reply, echo, failed, openai_server, rate_limited, refusal, said

from clha_core import paths
from clha_core.digest import folder_digest
from clha_core.errors import UserError

ASKED = {"candidates.endpoint.models": ["tiny-1"], "candidates.endpoint.samples": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_rows(tmp_path)
    return tmp_path


def use(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def test_the_dialogue_is_sent_as_it_is_and_every_sample_with_a_seed_of_its_own(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server() as server:
        use(server, monkeypatch)
        metrics = run(root, make_params(ASKED))
    sent = [call.body for call in server.calls if len(call.body["messages"]) == 3]
    assert sent[0]["messages"] == read(root)[1]["prompt"]
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in sent} == {("tiny-1", 64, 1.0)}
    assert read(root)[1]["responses"][2:] == ["You asked: Please. (seed 61)", "You asked: Please. (seed 62)"]
    assert read(root)[1]["origins"][2:] == ["endpoint:tiny-1"] * 2
    assert metrics["rows_by_candidates"] == {"4": 8}


def test_cost_is_counted_and_a_second_run_pays_nothing_and_says_the_same(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = {"candidates.endpoint.prompt_prices": [3.0], "candidates.endpoint.completion_prices": [15.0]}
    params = make_params(ASKED | prices)
    with openai_server(lambda call: said(f"answer {call.body['seed']}")) as server:
        use(server, monkeypatch)
        usage = run(root, params)["endpoint"]["tiny-1"]
        first = folder_digest(root / paths.CANDIDATES), metrics_of(root)
        run(root, params)
    assert len(server.calls) == 16
    assert (folder_digest(root / paths.CANDIDATES), metrics_of(root)) == first
    assert usage == {
        "prompt_tokens": 160,
        "completion_tokens": 32,
        "unmetered": 0,
        "cost": pytest.approx((160 * 3 + 32 * 15) / 1e6),
    }


def test_without_prices_tokens_are_counted_and_no_cost_is_made_up(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server() as server:
        use(server, monkeypatch)
        usage = run(root, make_params(ASKED))["endpoint"]["tiny-1"]
    assert usage["prompt_tokens"] == 160
    assert "cost" not in usage


def test_what_fails_is_counted_by_reason_and_what_is_cut_off_is_dropped(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moody(call: Call) -> Reply:
        first = call.body["messages"][0]["content"]
        if first == "What of train 0?":
            return refusal()
        if first == "What of train 1?":
            return failed(400, "the prompt is too long")
        if first == "What of train 2?":
            return said("cut in the mid", finish_reason="length")
        if first == "What of train 3?":
            return said("  ")
        if first == "What of train 4?":
            return said("good  4")
        return rate_limited() if call.nth == 0 else echo(call)

    with openai_server(moody) as server:
        use(server, monkeypatch)
        counts = run(root, make_params(ASKED))["by_origin"]["endpoint:tiny-1"]
    assert (counts["generated"], counts["added"]) == (16, 6)
    assert (counts["failed"], counts["failures"]) == (4, {"refused": 2, "rejected": 2})
    assert (counts["unfinished"], counts["empty"], counts["duplicate"]) == (2, 2, 2)


def test_several_models_are_asked_and_no_more_than_there_is_room_for(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server(lambda call: said(f"{call.body['model']} says {call.body['seed']}")) as server:
        use(server, monkeypatch)
        changes = {"candidates.endpoint.models": ["tiny-1", "tiny-2"], "candidates.max_candidates": 5}
        run(root, make_params(ASKED | changes))
    assert len(server.calls) == 8 * 3
    assert read(root)[0]["origins"] == ["data", "data", "endpoint:tiny-1", "endpoint:tiny-1", "endpoint:tiny-2"]


def test_the_record_names_the_model_and_neither_key_nor_address(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server() as server:
        use(server, monkeypatch)
        run(root, make_params(ASKED))
    assert origins_of(root)["endpoint:tiny-1"] == {
        "kind": "endpoint",
        "model": "tiny-1",
        "answered_by": ["tiny-1-0613"],
        "temperature": 1.0,
        "seed": 61,
        "max_tokens": 64,
    }
    written = b"".join(file.read_bytes() for file in root.rglob("*") if file.is_file())
    assert b"tiny-1" in written
    assert KEY.encode() not in written
    assert server.url.encode() not in written


def test_without_a_seed_none_is_sent_and_samples_differ_all_the_same(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server(lambda call: said(f"answer {call.nth}")) as server:
        use(server, monkeypatch)
        run(root, make_params(ASKED | {"candidates.endpoint.seed": None}))
    assert not [call for call in server.calls if "seed" in call.body]
    assert sorted(read(root)[0]["responses"][2:]) == ["answer 0", "answer 1"]


def test_a_missing_key_stops_before_anything_is_generated(
    root: Path, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        run(root, make_params(ASKED))


def test_prices_have_to_be_one_for_each_model(make_params: MakeParams) -> None:
    with pytest.raises(UserError, match="2 prices for 1 models"):
        make_params(ASKED | {"candidates.endpoint.prompt_prices": [1.0, 2.0]})
