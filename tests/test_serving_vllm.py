"""What vLLM is started with. A stub stands in for the executable: vLLM itself is too large for a test."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_server import source
from project import ROOT
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from clha_core.serving.app import Limits
from clha_core.serving.server import Address
from clha_core.serving.vllm import hh_template, vllm_command
from clha_core.serving.vllm_contract import VARIABLE, Contract
from clha_core.tokenization import encode_prompt

STUB = f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
TURNS = [
    {"role": "system", "content": 'Be "kind".'},
    {"role": "user", "content": "A cat\n\nsat."},
    {"role": "assistant", "content": "{{ 42 }}"},
    {"role": "user", "content": "Why?"},
]
LIMITS = Limits(running=3, waiting=1, max_body=2048)


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def checkpoint(folder: Path, **options: Any) -> Path:
    made = tiny.tokenizer(**options)
    return tiny.save(tiny.llama(made), made, folder)


@pytest.mark.parametrize("bos", [None, "<bos>"])
@pytest.mark.parametrize("turns", [TURNS, TURNS[1:], TURNS[1:2]])
def test_the_chat_template_writes_the_prompts_of_training(bos: str | None, turns: list) -> None:
    tokenizer = tiny.tokenizer(bos=bos)
    ids = tokenizer.apply_chat_template(
        turns, chat_template=hh_template(tokenizer), add_generation_prompt=True, return_dict=False
    )
    assert ids == encode_prompt(tokenizer, turns, "hh", 999)[0]


def test_clha_serve_becomes_vllm_where_it_is_installed(tmp_path: Path) -> None:
    checkpoint(tmp_path / "models" / "aligned")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    stub = tmp_path / "bin" / "vllm"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {
        "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}",
        "CLHA_SERVE_API_KEY": "s3cret",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "clha_core", "serve", "models/aligned", "--host", "0.0.0.0", "--concurrency", "3"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    said, printed = result.stdout.strip().splitlines()
    assert "start it again" in said
    arguments, given = json.loads(printed)
    assert arguments[:2] == ["serve", "models/aligned"]
    expected = {
        "--tokenizer": "models/aligned",
        "--host": "0.0.0.0",
        "--port": "8000",
        "--served-model-name": "aligned",
    }
    expected |= {"--max-model-len": "192", "--max-num-seqs": "3", "--dtype": "float32", "--generation-config": "vllm"}
    assert {name: option(arguments, name) for name in expected} == expected
    assert "--trust-remote-code" not in arguments
    assert given["VLLM_API_KEY"] == "s3cret"
    assert "s3cret" not in " ".join(arguments)
    template = Path(option(arguments, "--chat-template")).read_text()
    assert template == hh_template(tiny.tokenizer())
    # The middleware is found by a Python that has nothing of this project.
    module, _, name = option(arguments, "--middleware").rpartition(".")
    probe = f"import sys; from {module} import {name}; assert not [m for m in sys.modules if m.startswith('clha_core')]"
    subprocess.run(
        [sys.executable, "-S", "-c", probe], env={"PYTHONPATH": given["PYTHONPATH"].split(":")[0]}, check=True
    )


def test_a_chat_template_of_the_tokenizer_is_left_to_vllm(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", chat=True)
    command = vllm_command(
        "vllm", source(folder, prompt_format="chat_template"), Address("127.0.0.1", 1), LIMITS, 64, tmp_path / "made"
    )
    assert "--chat-template" not in command.arguments
    assert option(command.arguments, "--max-model-len") == "64"
    contract = json.loads(command.environment[VARIABLE])
    assert contract["stop_token_ids"] == [tiny.tokenizer(chat=True).convert_tokens_to_ids("<|im_end|>")]


def test_a_model_of_the_hub_is_named_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "pointer.json").write_text('{"model": "some/model", "revision": "c0ffee"}')
    monkeypatch.setattr("clha_core.serving.vllm.load_tokenizer", lambda *_, **__: tiny.tokenizer())  # it is elsewhere
    arguments = vllm_command("vllm", source(folder), Address("127.0.0.1", 1), LIMITS, None, tmp_path / "made").arguments
    assert arguments[2] == "some/model"
    for name, value in {"--tokenizer": "some/model", "--revision": "c0ffee", "--tokenizer-revision": "c0ffee"}.items():
        assert option(arguments, name) == value


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """What vLLM would be asked, behind the middleware."""

    async def echo(request: Request) -> JSONResponse:
        body = await request.body()
        return JSONResponse({"body": body.decode(), "announced": request.headers.get("content-length")})

    monkeypatch.setenv(VARIABLE, json.dumps({"stop": ["\n\nHuman:"], "stop_token_ids": [7], "max_body": 200}))
    paths = ("/v1/chat/completions", "/v1/completions")
    app = Starlette(routes=[Route(path, echo, methods=["POST"]) for path in paths])
    app.add_middleware(Contract)
    return TestClient(app)


@pytest.mark.parametrize(
    ("own", "stop"), [(None, ["\n\nHuman:"]), ("x", ["x", "\n\nHuman:"]), (["x", "y"], ["x", "y", "\n\nHuman:"])]
)
def test_the_endings_of_training_join_those_of_a_request(behind: TestClient, own: Any, stop: list[str]) -> None:
    reply = behind.post("/v1/chat/completions", json={"model": "m", "stop": own}).json()
    assert json.loads(reply["body"]) == {"model": "m", "stop": stop, "stop_token_ids": [7]}
    assert int(reply["announced"]) == len(reply["body"])


@pytest.mark.parametrize("body", ["{", "[]", "3", '{"stop": 3}'])
def test_what_is_no_chat_request_is_left_to_vllm(behind: TestClient, body: str) -> None:
    assert behind.post("/v1/chat/completions", content=body).json()["body"] == body


def test_other_paths_are_untouched_and_large_bodies_refused(behind: TestClient) -> None:
    assert behind.post("/v1/completions", content="{}").json()["body"] == "{}"
    reply = behind.post("/v1/chat/completions", content="x" * 201)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
