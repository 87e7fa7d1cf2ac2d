"""`clha judge`: a language model, or the evaluation's reward model, says which of two systems answers better.

Not a DVC stage: it costs money and asks a server that may answer differently tomorrow. What it answered is kept.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from clha_core import paths
from clha_core.errors import UserError
from clha_core.params import load_params
from clha_core.terminal import say, terminal

console = terminal()


def judge(
    model: Annotated[str | None, typer.Option(help="The judge, as the endpoint calls it.")] = None,
    reward_model: Annotated[
        bool, typer.Option("--reward-model", help="Let the evaluation's reward model judge instead, offline.")
    ] = False,
    system: Annotated[str, typer.Option(help="Wins of this system are counted.")] = "aligned",
    against: Annotated[str, typer.Option(help="The other system; human names the human-chosen answers.")] = "sft",
    count: Annotated[int | None, typer.Option(min=1, help="Pairs to judge, at most; all without it.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the pairs, as in `clha assess export`.")] = 1,
    tie_band: Annotated[float, typer.Option(min=0, help="Reward differences up to this size are ties.")] = 0.0,
    environment: Annotated[
        str, typer.Option(help="First part of the names of the two environment variables.")
    ] = "OPENAI",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")] = 120.0,
    max_retries: Annotated[int, typer.Option(min=0, help="Of a request that the server could not take.")] = 6,
    parse_retries: Annotated[int, typer.Option(min=0, help="Of a reply without a readable verdict.")] = 2,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of a verdict; more for models that think.")] = 512,
    prompt_price: Annotated[float, typer.Option(min=0, help="Price of a million tokens that are sent.")] = 0.0,
    completion_price: Annotated[float, typer.Option(min=0, help="Price of a million tokens that come back.")] = 0.0,
    mlflow: Annotated[bool, typer.Option(help="Add the verdicts to the aligned model's MLflow run.")] = True,
    generations: Annotated[Path, typer.Option(help="The evaluation's table of answers.")] = paths.GENERATIONS,
    out: Annotated[
        Path, typer.Option(help="Folder for verdicts, figures and what the endpoint replied.")
    ] = paths.JUDGING,
) -> None:
    """Judge pairs of answers, in both orders; OPENAI_BASE_URL and OPENAI_API_KEY name the endpoint."""
    from clha_core.judging.judge import REWARD_MODEL, judge_by_endpoint, judge_by_reward
    from clha_core.judging.pairs import read_pairs, sample_pairs
    from clha_core.judging.summary import summarise_verdicts
    from clha_core.judging.table import print_verdicts
    from clha_core.stages.context import write_metrics

    if (model is None) != reward_model:
        raise UserError("name one judge: --model MODEL (a language model at an endpoint) or --reward-model.")
    params = load_params()
    pairs = read_pairs(generations, system, against)
    pairs = pairs if count is None else sample_pairs(pairs, count, seed)
    usage = None
    if model is None:
        name, judged = REWARD_MODEL, judge_by_reward(pairs, tie_band)
    else:
        from clha_core.endpoint import Endpoint, usage_of

        endpoint = Endpoint.from_environment(
            out / "replies.sqlite", environment, concurrency=concurrency, timeout=timeout, max_retries=max_retries
        )
        name = model
        judged, answers = judge_by_endpoint(pairs, endpoint, model, max_tokens=max_tokens, parse_retries=parse_retries)
        spent = usage_of(answers, prompt_price=prompt_price, completion_price=completion_price)
        usage = vars(spent) | {"requests": len(answers), "cached": sum(answer.cached for answer in answers)}

    figures = {"system": system, "against": against} | summarise_verdicts(judged, name, params.evaluate)
    figures |= {"usage": usage} if usage else {}
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", f"{system}-vs-{against}-{name}")
    verdicts = out / f"{stem}.parquet"
    out.mkdir(parents=True, exist_ok=True)
    judged.assign(judge=name, system=system, against=against).to_parquet(verdicts, index=False)
    write_metrics(figures, out / f"{stem}.json")
    print_verdicts(figures, system, against, console)
    say(console, f"Every verdict is in {verdicts}, every figure beside it.")
    # Verdicts on other answers than those of models/aligned are not its record.
    if mlflow and system == "aligned" and generations == paths.GENERATIONS and paths.ALIGNED_MODEL.is_dir():
        from clha_core.tracking.judging import describe_judging
        from clha_core.tracking.mlflow_tracker import connect, run_of_model

        connect(Path(), params.registry.experiment)
        with run_of_model(params, Path()) as tracker:
            describe_judging(tracker, verdicts, figures)
