"""vLLM as the server: its command line, and what makes it ask and end as training did.

The chat template is our prompt format; the endings of answers, and what may be asked, come from the middleware in
vllm_contract.py.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from clha_core.errors import UserError
from clha_core.evaluation.generation.endings import ROLE_MARKERS
from clha_core.models.loading import follow_pointer, load_tokenizer
from clha_core.serving import vllm_contract
from clha_core.serving.address import Address, api_key
from clha_core.serving.app import Limits
from clha_core.serving.source import Source
from clha_core.tokenization import HH_GENERATION_PROMPT, HH_MARKERS, adds_bos, response_frame

MODULE = "clha_vllm_contract"


@dataclass(frozen=True)
class Command:
    """What becomes of this process."""

    arguments: list[str]
    environment: dict[str, str]


def installed() -> str | None:
    """The vllm executable on the path, if there is one."""
    return shutil.which("vllm")


def require() -> str:
    """The same.

    Raises:
        UserError: there is none.
    """
    executable = installed()
    if executable is None:
        raise UserError("there is no vllm on the path: install it, or serve with --server own.")
    return executable


def hh_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """HH's plain format as a Jinja chat template; the texts are those of `encode_prompt`."""
    roles = "".join(
        f"{{% {word} message['role'] == {json.dumps(role)} %}}{{{{ {json.dumps(HH_MARKERS[role])} }}}}"
        for word, role in (("if", "user"), ("elif", "assistant"))
    )
    bos = "{{ bos_token }}" if adds_bos(tokenizer) else ""
    turns = f"{{% for message in messages %}}{roles}{{% endif %}}{{{{ message['content'] | trim }}}}{{% endfor %}}"
    return bos + turns + f"{{% if add_generation_prompt %}}{{{{ {json.dumps(HH_GENERATION_PROMPT)} }}}}{{% endif %}}"


def vllm_command(
    executable: str, source: Source, address: Address, limits: Limits, max_context: int | None, folder: Path
) -> Command:
    """Write what vLLM reads besides the model to `folder`, and say how to start it.

    Raises:
        UserError: an open address without a key.
    """
    key = api_key(address.host)
    tokenizer = load_tokenizer(source.tokenizer, trust_remote_code=source.trust_remote_code)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(str(vllm_contract.__file__), folder / f"{MODULE}.py")
    template = []
    if source.settings.prompt_format == "hh":
        (folder / "chat_template.jinja").write_text(hh_template(tokenizer), encoding="utf-8")
        template = ["--chat-template", str(folder / "chat_template.jinja")]
    end = response_frame(tokenizer, source.settings.prompt_format)[1]
    contract = {
        "stop": list(ROLE_MARKERS),
        "stop_token_ids": [] if end is None else [end],
        "max_body": limits.max_body,
        "hosts": address.names() if key is None else None,
    }
    names = list(dict.fromkeys([source.name, source.version]))
    weights, words = follow_pointer(source.weights), follow_pointer(source.tokenizer)  # one place, if on the hub
    commit = weights.revision
    revision = ["--revision", commit, "--tokenizer-revision", commit] if commit else []
    arguments = [
        *(executable, "serve", weights.name, "--tokenizer", words.name, *revision),
        *("--host", address.host, "--port", str(address.port), "--served-model-name", *names),
        *("--dtype", source.settings.dtype, "--max-model-len", str(max_context or source.settings.max_length)),
        # Sampling settings that a checkpoint brings along are ignored, as in the evaluation.
        *("--generation-config", "vllm", "--max-num-seqs", str(limits.running)),
        *template,
        # By default vLLM lets the scripts of all pages of the web read its answers; the option takes a list in JSON.
        *("--middleware", f"{MODULE}.Contract", "--allowed-origins", "[]"),
        *(["--trust-remote-code"] if source.trust_remote_code else []),
    ]
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        vllm_contract.VARIABLE: json.dumps(contract),
        "VLLM_NO_USAGE_STATS": "1",
    }
    if key is not None:
        environment[vllm_contract.KEY_VARIABLE] = key  # not an argument: every user of the machine sees those
    return Command(arguments, environment)


def become(command: Command) -> None:
    """Replace this process by vLLM, so that signals and exit status are its own."""
    os.execve(command.arguments[0], command.arguments, command.environment)
