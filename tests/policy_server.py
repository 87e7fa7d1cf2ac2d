"""A real tiny policy behind an OpenAI-compatible server of completions, as vLLM would hold it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from openai_server import Call, OpenAIServer, Reply, continued, failed, openai_server
from transformers import AutoModelForCausalLM, AutoTokenizer

from clha_core.evaluation.generation.served import served_name


def completions_server(answer: Callable[[Call], Reply], models: list[str]) -> AbstractContextManager[OpenAIServer]:
    return openai_server(answer, models=models, path="/v1/completions")


def answers_of(folder: Path) -> Callable[[Call], Reply]:
    """Greedy answers, token by token, that end as vLLM's do: before a stop text, at a token that is named or is the
    model's own end, or at the limit."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    name = served_name(folder)

    @torch.inference_mode()
    def answer(call: Call) -> Reply:
        body = call.body
        if body["model"] != name:
            return failed(404, f"the model {body['model']} does not exist")
        ids: list[int] = []
        while len(ids) < body["max_tokens"]:
            ids.append(int(model(torch.tensor([body["prompt"] + ids])).logits[0, -1].argmax()))
            text = tokenizer.decode(ids, skip_special_tokens=True)
            if ids[-1] in {tokenizer.eos_token_id, *body["stop_token_ids"]}:
                return continued(text, "stop", tokens=len(ids))
            if found := [text.index(stop) for stop in body["stop"] if stop in text]:
                return continued(text[: min(found)], "stop", tokens=len(ids))
        return continued(text, "length", tokens=len(ids))

    return answer


def policy_server(folder: Path) -> AbstractContextManager[OpenAIServer]:
    """The model of a folder, by the name that this project asks for."""
    return completions_server(answers_of(folder), [served_name(folder)])
