"""Answers of a policy that a server holds: vLLM, or another with OpenAI's completions of token ids.

The server is asked for a checkpoint by a name that has the checkpoint's sha256 in it. So neither a server that was
started with older weights nor a reply of theirs on disk is taken for this policy.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from transformers import GenerationConfig

from clha_core.digest import folder_digest
from clha_core.endpoint import Answer, Continuation, Endpoint
from clha_core.errors import UserError
from clha_core.evaluation.generation.endings import ROLE_MARKERS, Generation, before_marker, end_token_ids
from clha_core.evaluation.sampling import Sampling
from clha_core.models.loading import follow_pointer, load_tokenizer

ENVIRONMENT = "GENERATOR"  # GENERATOR_BASE_URL, GENERATOR_API_KEY
REPLIES = "served.sqlite"
TIMEOUT = 600.0  # seconds: a server may keep requests waiting


def served_name(folder: Path) -> str:
    """What a server has to call the model of a stage's output folder."""
    return f"{folder.name}-{folder_digest(folder)[:12]}"


def require_served(folders: Iterable[Path], kept: Path) -> None:
    """Look whether servers hold the models of all folders.

    Raises:
        UserError: the environment names no server, one does not answer, or models are missing; says how to serve them.
    """
    missing = {folder: name for folder in folders if _endpoint(name := served_name(folder), kept, 1) is None}
    if missing:
        raise _not_served(missing)


class ServedPolicy:
    """The model of a folder, behind a server.

    Args:
        folder: a stage's output folder.
        kept: folder in which replies outlive the process.
        concurrency: requests under way at once, at most.
        trust_remote_code: for the tokenizer.

    Raises:
        UserError: as `require_served`.
    """

    def __init__(self, folder: Path, kept: Path, *, concurrency: int, trust_remote_code: bool) -> None:
        self.name = served_name(folder)
        endpoint = _endpoint(self.name, kept, concurrency)
        if endpoint is None:
            raise _not_served({folder: self.name})
        self.endpoint = endpoint
        tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
        self.end_ids = end_token_ids(_generation_config(folder), tokenizer)

    def generate(
        self,
        prompt_ids: Sequence[list[int]],
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        description: str = "generate",
    ) -> list[Generation]:
        """As `generate_responses`; sampled answers are not those of transformers, and their seeds are the server's.

        Raises:
            UserError: as `Endpoint.complete`, or a prompt has no answer.
        """
        requests = [
            Continuation(
                model=self.name,
                prompt_ids=ids,
                max_tokens=max_new_tokens,
                temperature=sampling.temperature if sampling else 0.0,
                top_p=sampling.top_p if sampling else 1.0,
                seed=sampling.seeds[number] if sampling else 0,
                stop=ROLE_MARKERS,
                stop_token_ids=self.end_ids,
            )
            for number, ids in enumerate(prompt_ids)
        ]
        answers = self.endpoint.complete(requests, description=description)
        bad = [
            (number, answer)
            for number, answer in enumerate(answers)
            if answer.error or answer.finish_reason not in ("stop", "length")
        ]
        if bad:
            number, first = bad[0]
            raise UserError(
                f"{self.endpoint.address} left {len(bad)} of {len(answers)} prompts of {self.name} without an answer. "
                f"The first, number {number}: {first.detail or first.finish_reason}. What was answered is kept."
            )
        return [_generation(answer) for answer in answers]


def _generation(answer: Answer) -> Generation:
    # A server need not cut the marker that it stops at.
    text = before_marker(answer.text, ROLE_MARKERS)
    finished = answer.finish_reason == "stop" or text != answer.text
    return Generation(text.strip(), finished, answer.completion_tokens)


def _endpoint(name: str, kept: Path, concurrency: int) -> Endpoint | None:
    return Endpoint.serving(name, kept / REPLIES, ENVIRONMENT, concurrency=concurrency, timeout=TIMEOUT)


def _not_served(missing: Mapping[Path, str]) -> UserError:
    """By folder, the names that no server has."""
    commands = "\n".join(f"  {_command(folder, name)}" for folder, name in missing.items())
    return UserError(
        f"no server of {ENVIRONMENT}_BASE_URL holds these weights: start, where vLLM is installed,\n{commands}\n"
        f"and list the servers' addresses (up to /v1) in {ENVIRONMENT}_BASE_URL, separated by spaces."
    )


def _command(folder: Path, name: str) -> str:
    source = follow_pointer(folder)
    revision = f" --revision {source.revision}" if source.revision else ""
    # Without a host vLLM listens on all interfaces, and without the last option it takes what it is not told from the
    # checkpoint: a repetition penalty, say.
    return f"vllm serve {source.name}{revision} --host 127.0.0.1 --served-model-name {name} --generation-config vllm"


def _generation_config(folder: Path) -> GenerationConfig | None:
    source = follow_pointer(folder)
    try:
        return GenerationConfig.from_pretrained(source.name, revision=source.revision or "main")
    except OSError:  # it has none
        return None
