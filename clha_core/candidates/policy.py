"""Responses sampled from a policy: a checkpoint folder, a stage's model, or a model of the hub."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clha_core.candidates.pool import Draft
from clha_core.digest import folder_digest
from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.generation.served import ServedPolicy, require_served
from clha_core.evaluation.sampling import Sampling
from clha_core.models.loading import POINTER, load_policy, load_tokenizer, on_device, write_pointer
from clha_core.params import PolicyCandidatesParams, PolicyParams
from clha_core.replacing import replacing
from clha_core.tokenization import encode_prompt


@dataclass(frozen=True)
class _Job:
    """One sample of one prompt."""

    prompt_ids: tuple[int, ...]
    sample: int
    seed: int


class PolicySampler:
    """A policy to sample from. Finished batches are kept in a folder: a run that was killed goes on from there.

    Args:
        model: folder or hub id; a hub id may end in @ and a revision.
        params: how to sample.
        policy: how prompts are encoded and models loaded.
        root: of the project; a relative folder is below it.
        kept: folder for finished batches.

    Raises:
        UserError: neither a folder nor on the hub, or not served where a server is to sample.
    """

    def __init__(
        self, model: str, params: PolicyCandidatesParams, policy: PolicyParams, root: Path, kept: Path
    ) -> None:
        self.model = model
        self.origin = f"policy:{model}"
        self.params = params
        self.policy = policy
        self.folder = root / model
        if not self.folder.is_dir():
            name, _, revision = model.partition("@")
            self.folder = kept / "models" / hashlib.sha256(model.encode()).hexdigest()[:16]
            write_pointer(name, revision or None, self.folder)
        if params.generator == "endpoint":
            require_served([self.folder], kept)
        self.digest = folder_digest(self.folder)
        self._replies = kept
        self._kept = kept / "batches"
        self._loaded: PreTrainedModel | None = None

    def describe(self) -> dict[str, Any]:
        """What made the responses: model with commit or sha256, and the settings of sampling."""
        pointer = self.folder / POINTER
        named = json.loads(pointer.read_text(encoding="utf-8")) if pointer.exists() else {"digest": self.digest}
        return {"kind": "policy", "model": self.model} | named | self._settings()

    def _settings(self) -> dict[str, Any]:
        settings = self.params.model_dump(exclude={"models", "samples", "batch_size"})
        if self.params.generator == "transformers":
            del settings["generator"]  # the usual one, of which nothing is said
        return settings

    def generate(self, rows: Sequence[Mapping[str, Any]], room: Sequence[int]) -> Iterator[Draft]:
        """Up to `samples` responses for each row, `room` of it at most; rows of one prompt get the same ones."""
        tokenizer = load_tokenizer(self.folder, trust_remote_code=self.policy.trust_remote_code)
        wanted = [min(self.params.samples, free) for free in room]
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for number, row in enumerate(rows):
            if wanted[number]:
                ids, _ = encode_prompt(
                    tokenizer, row["prompt"], self.policy.prompt_format, self.policy.max_prompt_length
                )
                rows_of.setdefault(tuple(ids), []).append(number)
        jobs = [
            _Job(ids, sample, _seed(self.params.seed, ids, sample))
            for ids, numbers in rows_of.items()
            for sample in range(max(wanted[number] for number in numbers))
        ]
        for job, generation in self._answers(tokenizer, jobs):
            for number in rows_of[job.prompt_ids]:
                if job.sample < wanted[number]:
                    yield Draft(number, generation.text, generation.finished)
        self._loaded = None  # makes room for the next one

    def _answers(self, tokenizer: PreTrainedTokenizerBase, jobs: list[_Job]) -> Iterator[tuple[_Job, Generation]]:
        """In batches of similar length, the same ones in every run, so that the same bits come out; or by a server."""
        if self.params.generator == "endpoint":
            yield from zip(jobs, self._served(jobs), strict=True)
            return
        jobs = sorted(jobs, key=lambda job: -len(job.prompt_ids))
        with tqdm(total=len(jobs), desc=f"sample {self.model}", unit="response") as progress:
            for start in range(0, len(jobs), self.params.batch_size):
                batch = jobs[start : start + self.params.batch_size]
                yield from zip(batch, self._batch(tokenizer, batch), strict=True)
                progress.update(len(batch))

    def _served(self, jobs: list[_Job]) -> list[Generation]:
        served = ServedPolicy(
            self.folder,
            self._replies,
            concurrency=self.params.batch_size,
            trust_remote_code=self.policy.trust_remote_code,
        )
        return served.generate(
            [list(job.prompt_ids) for job in jobs],
            max_new_tokens=self.params.max_new_tokens,
            sampling=self._sampling(jobs),
            description=f"sample {self.model}",
        )

    def _sampling(self, jobs: list[_Job]) -> Sampling:
        return Sampling(self.params.temperature, self.params.top_p, [job.seed for job in jobs])

    def _batch(self, tokenizer: PreTrainedTokenizerBase, batch: list[_Job]) -> list[Generation]:
        values = [self.digest, self.policy.dtype, self._settings(), [[job.prompt_ids, job.seed] for job in batch]]
        file = self._kept / f"{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()}.json"
        if file.exists():
            return [Generation(**kept) for kept in json.loads(file.read_text(encoding="utf-8"))]
        generations = generate_responses(
            self._policy(),
            tokenizer,
            [list(job.prompt_ids) for job in batch],
            max_new_tokens=self.params.max_new_tokens,
            batch_size=len(batch),
            sampling=self._sampling(batch),
            description=None,
        )
        with replacing(file) as partial:
            partial.write_text(json.dumps([asdict(generation) for generation in generations]), encoding="utf-8")
        return generations

    def _policy(self) -> PreTrainedModel:
        if self._loaded is None:
            model = load_policy(self.folder, dtype=self.policy.dtype, trust_remote_code=self.policy.trust_remote_code)
            self._loaded = on_device(model).eval()
        return self._loaded


def _seed(seed: int, prompt_ids: Sequence[int], sample: int) -> int:
    """The seed of one sample: another one for every prompt, whatever its row is called or what stands beside it."""
    text = json.dumps([seed, sample, list(prompt_ids)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
