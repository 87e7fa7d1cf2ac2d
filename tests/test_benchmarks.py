"""The benchmarks: they run, they compare equal computations, and they judge what they measured."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from benchmarks import generation_speed, gpu_train, rescore_speed
from benchmarks.batches import Draw, Row, draw, in_batches, padding_ratio, tokens
from benchmarks.contestant import Contestant
from benchmarks.generators import MAX_NEW_TOKENS, generators, prompts_of_hh
from benchmarks.hh_lengths import MAX_LENGTH, MAX_PROMPT_LENGTH, measure_lengths, read_lengths
from benchmarks.measure import cpu_peak, difference
from benchmarks.models import TINY_SHAPE, body_parameters, build, embedding_parameters
from benchmarks.ours import ours
from benchmarks.peers_trl import chunked, cpo_features, cpo_trainer
from benchmarks.reference_loop import collate, reference
from benchmarks.results import GOALS, Cell, Results, Step, load, verdicts
from benchmarks.scorers import Scorer, scorers, texts_of
from clha_core.evaluation.generation import Generation

ROOT = Path(__file__).resolve().parents[1]


def tiny_draw(n: int = 2, samples: int = 3) -> Draw:
    return draw(n=n, samples=samples, batches=2, vocab_size=TINY_SHAPE.vocab_size)


def test_quick_run_measures_every_setting_and_writes_both_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.train_speed", "--quick"]
    files = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {"CPU", "torch", "transformers", "trl"} <= set(results["machine"])
    cells = {cell["setting"]: cell for cell in results["cells"]}
    assert {name: set(cell["steps"]) for name, cell in cells.items()} == {
        "n2-b4": {"reference", "ours", "trl cpo", "trl chunked"},
        "n2-b2": {"reference", "ours"},
        "n3-b4": {"reference", "ours"},
        "bf16": {"reference", "ours", "ours fp32"},
    }
    for cell in cells.values():
        assert cell["padding"] >= 1
        assert all(step["seconds"] > 0 and step["activation_bytes"] > 0 for step in cell["steps"].values())
    assert cells["n2-b4"]["steps"]["ours"]["loss_difference"] < 1e-5
    assert cells["n3-b4"]["steps"]["ours"]["gradient_difference"] < 1e-4

    tables = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert tables.count("**") == 10
    assert tables.count("| missed |") + tables.count("| met |") == len(GOALS)


@pytest.mark.parametrize("n", [2, 3])
def test_ours_computes_the_loss_and_the_gradient_of_the_reference(n: int) -> None:
    apart = difference(ours(build(TINY_SHAPE)), reference(build(TINY_SHAPE)), tiny_draw(n).shuffled[0])
    assert apart.loss < 1e-6
    assert apart.gradient < 1e-5


def test_trls_chunked_path_computes_the_loss_and_the_gradient_of_the_reference() -> None:
    apart = difference(chunked(build(TINY_SHAPE)), reference(build(TINY_SHAPE)), tiny_draw().shuffled[0])
    assert apart.loss < 1e-6
    assert apart.gradient < 1e-5


def test_trls_cpo_scores_the_same_responses_as_the_reference() -> None:
    rows = tiny_draw().shuffled[0]
    trainer = cpo_trainer(build(TINY_SHAPE))
    with torch.no_grad():
        chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, trainer.data_collator(cpo_features(rows)))
        model, batch = build(TINY_SHAPE), collate(rows, torch.device("cpu"))
        for scored, (ids, attention, response) in zip((chosen, rejected), batch.ranks, strict=True):
            logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1]
            logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
            expected = [line[mask].mean() for line, mask in zip(logps, response[:, 1:], strict=True)]
            torch.testing.assert_close(scored, torch.stack(expected), atol=1e-5, rtol=0)


def test_flex_attention_sees_the_same_tree_as_sdpa() -> None:
    rows = tiny_draw(n=3).shuffled[0]
    with torch.no_grad():
        losses = [one.loss(rows).item() for one in (ours(build(TINY_SHAPE)), ours(build(TINY_SHAPE), attention="flex"))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_contestant_with_another_loss_is_found_out() -> None:
    model = build(TINY_SHAPE)
    right = ours(model)
    wrong = Contestant("wrong", model, right.collate, lambda rows: 1.01 * right.loss(rows))
    apart = difference(wrong, reference(build(TINY_SHAPE)), tiny_draw().shuffled[0])
    assert apart.loss == pytest.approx(0.01, rel=1e-3)
    assert apart.gradient == pytest.approx(0.01, rel=1e-3)


def test_lengths_are_those_of_the_real_rows(hh_slice: Path) -> None:
    assert read_lengths(2) == measure_lengths(hh_slice / "harmless-base" / "train.jsonl.gz")


def test_rows_fit_the_papers_limits_with_any_number_of_candidates() -> None:
    for row in read_lengths(4):
        assert len(row.responses) == 4
        assert row.prompt <= MAX_PROMPT_LENGTH
        assert row.prompt + max(row.responses) <= MAX_LENGTH


def test_grouped_and_shuffled_batches_hold_rows_of_the_same_lengths() -> None:
    drawn = draw(n=2, samples=4, batches=8, vocab_size=100)

    def lengths(batches: list[list[Row]]) -> list[tuple[int, ...]]:
        return sorted((len(row.prompt_ids), *map(len, row.response_ids)) for batch in batches for row in batch)

    assert lengths(drawn.grouped) == lengths(drawn.shuffled)


def test_the_shuffle_is_padded_like_the_whole_file() -> None:
    usual = padding_ratio(in_batches(read_lengths(2), 4))
    assert draw(n=2, samples=4, batches=4, vocab_size=100).padding == pytest.approx(usual, abs=0.03)


def test_the_activation_peak_counts_what_is_alive_at_once() -> None:
    kept = []

    def work() -> None:
        first = torch.ones(1000, 1000)
        kept.append(first + 1)
        del first
        kept.append(torch.ones(500, 1000))

    assert cpu_peak(work) == pytest.approx(8e6, rel=1e-3)


def test_model_flops_count_every_true_token_once_and_causal_attention() -> None:
    rows = [Row([5] * 6, [[7] * 2, [7] * 4], [4.0, 0.0])]
    assert tokens(rows[0]) == 18
    assert gpu_train.model_flops(rows, TINY_SHAPE, body=1000) == 6 * 1000 * 18 + 6 * 2 * 32 * (8**2 + 10**2)


def test_body_and_embeddings_are_the_whole_model() -> None:
    model = build(TINY_SHAPE)
    assert body_parameters(model) + embedding_parameters(model) == sum(p.numel() for p in model.parameters())


def cell(size: str, **measured: Any) -> Cell:
    def step(seconds: float, megabytes: int) -> Step:
        return Step(
            seconds=seconds,
            forward_backward_seconds=seconds,
            optimizer_seconds=0,
            activation_bytes=megabytes * 1_000_000,
        )

    values: dict[str, Any] = {
        "size": size,
        "setting": "n2-b4",
        "n": 2,
        "samples": 4,
        "batches": 1,
        "rounds": 1,
        "padding": 1.0,
        "body_parameters": 1,
        "embedding_parameters": 1,
    }
    return Cell(**values, steps={name: step(*numbers) for name, numbers in measured.items()})


def test_a_goal_is_judged_by_the_mean_or_by_the_worst_size_as_it_says() -> None:
    found = verdicts([cell("a", reference=(7.5, 100), ours=(1.0, 20)), cell("b", reference=(3.0, 100), ours=(1.0, 30))])
    judged = {(verdict.goal.quantity, verdict.goal.judged): verdict for verdict in found}
    assert judged["speed", "mean"].mean == 5.25
    assert judged["speed", "mean"].met
    assert judged["speed", "worst"].worst == 3.0
    assert not judged["speed", "worst"].met
    assert judged["memory", "worst"].worst == 0.3
    assert not judged["memory", "worst"].met


def test_results_of_another_machine_are_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    cells = [cell("a", reference=(2.0, 1), ours=(1.0, 1))]
    file.write_text(Results(machine={"CPU": "this"}, cells=cells).model_dump_json(), encoding="utf-8")
    assert load(file, {"CPU": "this"}).cells == cells
    assert load(file, {"CPU": "other"}).cells == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_benchmark_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        gpu_train.main()
    assert ended.value.exit_code == 1
    assert capsys.readouterr().out.startswith("No CUDA device was found")


def test_scoring_is_compared_at_equal_scores_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rescore_speed.main(quick=True, markdown_file=tmp_path / "out.md")
    assert "measuring tiny n = 3" in capsys.readouterr().out
    tables = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert tables.count("**") == 8
    assert tables.count("| met |") + tables.count("| missed |") == 6


def test_a_scorer_with_other_scores_is_found_out() -> None:
    texts = texts_of(tiny_draw().shuffled[0])
    competing = scorers(TINY_SHAPE)
    assert max(rescore_speed.agreement(competing, texts).values()) < 1e-6
    wrong = Scorer("wrong", lambda rows: [score + 1e-4 for score in competing[0].score(rows)])
    with pytest.raises(RuntimeError, match=r"scores differ from the pipeline's: \{'wrong'"):
        rescore_speed.agreement([*competing, wrong], texts)


def test_generation_is_compared_at_equal_answers_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generation_speed.main(quick=True, markdown_file=tmp_path / "out.md")
    assert "measuring tiny" in capsys.readouterr().out
    tables = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert tables.count("**") == 8
    assert tables.count("| met |") + tables.count("| missed |") == 1


def test_a_generator_with_other_answers_is_found_out() -> None:
    right = [Generation("t5 t6", True, 3)]
    assert generation_speed.same_answers({"plain generate": right, "ours": right}) == right
    with pytest.raises(RuntimeError, match=r"ours gives other answers than plain generate to 1 prompts: \[0\]"):
        generation_speed.same_answers({"plain generate": right, "ours": [Generation("t5", True, 3)]})


def test_answers_of_the_benchmarks_model_are_about_as_long_as_those_of_hh() -> None:
    (answer,) = [one for one in generators(TINY_SHAPE, MAX_NEW_TOKENS) if one.name == "ours"]
    found = [one.tokens for one in answer.answer(prompts_of_hh(112, TINY_SHAPE.vocab_size))]
    real = [min(lengths.responses[0], MAX_NEW_TOKENS) for lengths in read_lengths(2)]
    assert statistics.mean(found) == pytest.approx(statistics.mean(real), rel=0.25)
    assert statistics.pstdev(found) == pytest.approx(statistics.pstdev(real), rel=0.25)
