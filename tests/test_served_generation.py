"""Answers of a policy that a server holds, over real HTTP: those of transformers, for the very tokens, or an error."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import tiny
from candidate_cases import MakeParams, origins_of, read, run, save_policy, write_rows
from openai_server import KEY, Call, OpenAIServer, Reply, continued, failed
from policy_server import completions_server, policy_server

from clha_core import paths
from clha_core.errors import UserError
from clha_core.evaluation.evaluate import Evaluator, protocol
from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.generation.served import ServedPolicy, require_served, served_name
from clha_core.evaluation.sampling import Sampling
from clha_core.models.loading import load_policy, load_tokenizer, write_pointer

TOKENIZER = tiny.tokenizer()
TEXTS = ["\n\nHuman: a cat\n\nAssistant:", "twice a week", "Please don't.", "\n\nHuman: 42\n\nAssistant:"]
PROMPTS = [TOKENIZER.encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "aligned")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(*servers: OpenAIServer) -> None:
        monkeypatch.setenv("GENERATOR_BASE_URL", " ".join(server.url for server in servers))
        monkeypatch.setenv("GENERATOR_API_KEY", KEY)

    return use


def served(folder: Path, kept: Path) -> ServedPolicy:
    return ServedPolicy(folder, kept, concurrency=4, trust_remote_code=False)


def scripted(folder: Path, reply: Reply) -> AbstractContextManager[OpenAIServer]:
    return completions_server(lambda call: reply, [served_name(folder)])


def test_answers_are_those_of_transformers_with_their_flags_and_lengths(
    policy: Path, tmp_path: Path, use: Callable[..., None]
) -> None:
    here = generate_responses(
        load_policy(policy, dtype="float32"), load_tokenizer(policy), PROMPTS, max_new_tokens=6, batch_size=2
    )
    with policy_server(policy) as server:
        use(server)
        there = served(policy, tmp_path).generate(PROMPTS, max_new_tokens=6)
    assert there == here
    assert {answer.finished for answer in here} == {True, False}


def test_a_server_gets_the_prompts_own_tokens_and_every_setting(
    policy: Path, tmp_path: Path, use: Callable[..., None]
) -> None:
    with policy_server(policy) as server:
        use(server)
        served(policy, tmp_path).generate(PROMPTS[:1], max_new_tokens=6)
    assert [call.body for call in server.calls] == [
        {
            "model": served_name(policy),
            "prompt": PROMPTS[0],
            "max_tokens": 6,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "stop": ["\n\nHuman:", "\n\nAssistant:"],
            "stop_token_ids": sorted({TOKENIZER.eos_token_id, *range(10, 90)}),
        }
    ]


def test_the_end_of_a_chat_turn_is_a_stop_token(tmp_path: Path, use: Callable[..., None]) -> None:
    chatty = tiny.tokenizer(chat=True)
    folder = tiny.save(tiny.llama(chatty), chatty, tmp_path / "chatty")
    with scripted(folder, continued("Yes.", "stop")) as server:
        use(server)
        served(folder, tmp_path).generate([[5]], max_new_tokens=6)
    assert chatty.convert_tokens_to_ids("<|im_end|>") in server.calls[0].body["stop_token_ids"]


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        (" Twice a week. ", "stop", Generation("Twice a week.", True, 7)),
        (" Twice a", "length", Generation("Twice a", False, 7)),
        (" Twice.\n\nHuman: why", "length", Generation("Twice.", True, 7)),  # a server that does not cut at the marker
        ("", "stop", Generation("", True, 7)),
    ],
)
def test_what_a_server_says_of_the_end_is_kept(
    policy: Path, tmp_path: Path, use: Callable[..., None], text: str, reason: str, expected: Generation
) -> None:
    with scripted(policy, continued(text, reason, tokens=7)) as server:
        use(server)
        assert served(policy, tmp_path).generate([[5]], max_new_tokens=8) == [expected]


def test_every_sample_is_asked_with_its_seed_and_the_settings(
    policy: Path, tmp_path: Path, use: Callable[..., None]
) -> None:
    with scripted(policy, continued("Yes.", "stop")) as server:
        use(server)
        sampling = Sampling(temperature=0.7, top_p=0.9, seeds=[11, 12, 13, 14])
        served(policy, tmp_path).generate(PROMPTS, max_new_tokens=6, sampling=sampling)
    sent = {(tuple(call.body["prompt"]), call.body["seed"]) for call in server.calls}
    assert sent == {(tuple(ids), seed) for ids, seed in zip(PROMPTS, sampling.seeds, strict=True)}
    assert {(call.body["temperature"], call.body["top_p"]) for call in server.calls} == {(0.7, 0.9)}


def test_a_second_pass_asks_nothing(policy: Path, tmp_path: Path, use: Callable[..., None]) -> None:
    with policy_server(policy) as server:
        use(server)
        first = served(policy, tmp_path).generate(PROMPTS, max_new_tokens=6)
        assert served(policy, tmp_path).generate(PROMPTS, max_new_tokens=6) == first
    assert len(server.calls) == len(PROMPTS)


def test_a_server_with_older_weights_is_not_asked_and_the_command_to_start_is_said(
    policy: Path, tmp_path: Path, use: Callable[..., None]
) -> None:
    newer = save_policy(tmp_path / "aligned", seed=1)
    with policy_server(policy) as server:
        use(server)
        with pytest.raises(UserError) as caught:
            served(newer, tmp_path)
    options = f"--host 127.0.0.1 --served-model-name {served_name(newer)} --generation-config vllm"
    assert f"vllm serve {newer} {options}" in str(caught.value)
    assert server.calls == []


def test_each_model_is_found_among_several_servers(policy: Path, tmp_path: Path, use: Callable[..., None]) -> None:
    other = save_policy(tmp_path / "sft", seed=1)
    with policy_server(policy) as one, policy_server(other) as two:
        use(one, two)
        require_served([policy, other], tmp_path)
        served(other, tmp_path).generate(PROMPTS, max_new_tokens=6)
        assert (len(one.calls), len(two.calls)) == (0, len(PROMPTS))


def test_a_pinned_model_of_the_hub_is_to_be_served_at_its_commit(
    tmp_path: Path, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clha_core.models.loading.resolve_revision", lambda model, revision: "abc123")
    write_pointer("nobody/tiny", None, tmp_path / "base")
    with completions_server(lambda call: continued("", "stop"), []) as server:
        use(server)
        with pytest.raises(UserError, match=r"nobody/tiny --revision abc123 .*--served-model-name base-"):
            require_served([tmp_path / "base"], tmp_path)


def test_a_prompt_without_an_answer_is_an_error(policy: Path, tmp_path: Path, use: Callable[..., None]) -> None:
    def moody(call: Call) -> Reply:
        return failed(400, "the prompt is too long") if call.body["prompt"] == PROMPTS[1] else continued("Yes.", "stop")

    with completions_server(moody, [served_name(policy)]) as server:
        use(server)
        with pytest.raises(UserError, match=r"1 of 4 prompts.*number 1: .*the prompt is too long"):
            served(policy, tmp_path).generate(PROMPTS, max_new_tokens=6)


def test_a_server_that_broke_off_is_an_error(policy: Path, tmp_path: Path, use: Callable[..., None]) -> None:
    with scripted(policy, continued("Twi", "abort")) as server:
        use(server)
        with pytest.raises(UserError, match="abort"):
            served(policy, tmp_path).generate(PROMPTS[:1], max_new_tokens=6)


def test_without_a_server_the_variables_are_named(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENERATOR_BASE_URL", raising=False)
    with pytest.raises(UserError, match="GENERATOR_BASE_URL"):
        served(policy, tmp_path)


def test_a_server_that_does_not_answer_is_named_without_the_key(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with completions_server(lambda call: continued("", "stop"), []) as server:
        monkeypatch.setenv("GENERATOR_BASE_URL", server.url)
        monkeypatch.setenv("GENERATOR_API_KEY", "sk-wrong-77")
        with pytest.raises(UserError, match=r"http://127\.0\.0\.1.*names? its models") as caught:
            served(policy, tmp_path)
    assert "sk-wrong-77" not in str(caught.value)


def test_an_evaluation_by_a_server_differs_in_its_protocol_alone(
    policy: Path, tmp_path: Path, make_params: MakeParams, use: Callable[..., None]
) -> None:
    reward = tiny.save(tiny.llama_reward(TOKENIZER), TOKENIZER, tmp_path / "reward")
    rows = [
        {
            "id": f"tiny/test/{number}",
            "subset": "tiny",
            "prompt": [{"role": "user", "content": text}],
            "responses": ["Twice a week.", "Please don't."],
            "sources": ["chosen", "rejected"],
        }
        for number, text in enumerate(("How often?", "A cat sat on the mat; why?"))
    ]
    tables, protocols = [], []
    with policy_server(policy) as server:
        use(server)
        for generator in ("transformers", "endpoint"):
            changes = {"evaluate.generator": generator, "evaluate.max_new_tokens": 6, "data.source": "local"}
            params = make_params(changes)
            evaluator = Evaluator(params, rows, reward, tmp_path)
            evaluator.add_system("aligned", policy)
            tables.append(evaluator.table())
            protocols.append(protocol(params, tables[-1], reward))
    assert len(server.calls) == 2
    assert tables[0].equals(tables[1])
    assert protocols[1] == protocols[0] | {"generator": "endpoint"}


def test_candidates_of_a_server_have_its_policy_as_their_origin(
    tmp_path: Path, make_params: MakeParams, use: Callable[..., None]
) -> None:
    write_rows(tmp_path)
    folder = save_policy(tmp_path / "models/base")
    wanted = {"models": ["models/base"], "samples": 2, "generator": "endpoint"}
    params = make_params({f"candidates.policy.{name}": value for name, value in wanted.items()})
    with completions_server(
        lambda call: continued(f"answer {call.body['seed']}", "stop"), [served_name(folder)]
    ) as server:
        use(server)
        counts = run(tmp_path, params)["by_origin"]["policy:models/base"]
        assert (counts["added"], len(server.calls)) == (16, 16)
        run(tmp_path, params)
        assert len(server.calls) == 16  # replies were kept
    assert origins_of(tmp_path)["policy:models/base"]["generator"] == "endpoint"
    assert read(tmp_path)[0]["origins"] == ["data", "data", "policy:models/base", "policy:models/base"]
    assert not (tmp_path / paths.KEPT_CANDIDATES / "batches").exists()
