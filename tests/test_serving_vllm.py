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
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from clha_core.serving.address import Address
from clha_core.serving.app import Limits
from clha_core.serving.vllm import hh_template, vllm_command
from clha_core.serving.vllm_contract import KEY_VARIABLE, VARIABLE, Contract
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
    expected |= {"--allowed-origins": "[]"}
    assert {name: option(arguments, name) for name in expected} == expected
    assert "--trust-remote-code" not in arguments
    assert given["VLLM_API_KEY"] == "s3cret"
    assert "s3cret" not in " ".join(arguments)
    assert json.loads(given[VARIABLE])["hosts"] is None
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


def test_without_a_key_vllm_is_told_the_names_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLHA_SERVE_API_KEY", raising=False)
    folder = checkpoint(tmp_path / "model")
    command = vllm_command("vllm", source(folder), Address("127.0.0.7", 1), LIMITS, None, tmp_path / "made")
    assert json.loads(command.environment[VARIABLE])["hosts"] == ["127.0.0.1", "localhost", "[::1]", "127.0.0.7"]


def test_a_model_of_the_hub_is_named_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "pointer.json").write_text('{"model": "some/model", "revision": "c0ffee"}')
    monkeypatch.setattr("clha_core.serving.vllm.load_tokenizer", lambda *_, **__: tiny.tokenizer())  # it is elsewhere
    arguments = vllm_command("vllm", source(folder), Address("127.0.0.1", 1), LIMITS, None, tmp_path / "made").arguments
    assert arguments[2] == "some/model"
    for name, value in {"--tokenizer": "some/model", "--revision": "c0ffee", "--tokenizer-revision": "c0ffee"}.items():
        assert option(arguments, name) == value


CHAT = "/v1/chat/completions"
MAX_BODY = 5000
OWN_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def client_of(monkeypatch: pytest.MonkeyPatch, hosts: list[str] | None, key: str | None) -> TestClient:
    """A client of something that answers every path, as vLLM answers many, behind the middleware."""

    async def echo(request: Request) -> JSONResponse:
        body = await request.body()
        return JSONResponse({"body": body.decode(), "announced": request.headers.get("content-length")})

    async def accept(socket: WebSocket) -> None:
        await socket.accept()

    contract = {"stop": ["\n\nHuman:"], "stop_token_ids": [7], "max_body": MAX_BODY, "hosts": hosts}
    monkeypatch.setenv(VARIABLE, json.dumps(contract))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    app = Starlette(
        routes=[Route("/{path:path}", echo, methods=["GET", "POST"]), WebSocketRoute("/{path:path}", accept)]
    )
    app.add_middleware(Contract)
    return TestClient(app, base_url="http://127.0.0.1:8000")


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Without a key, as at a loopback address."""
    return client_of(monkeypatch, OWN_NAMES, None)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """With a key, as at an open address."""
    return client_of(monkeypatch, None, "s3cret-é")


@pytest.mark.parametrize(
    ("own", "stop"), [(None, ["\n\nHuman:"]), ("x", ["x", "\n\nHuman:"]), (["x", "y"], ["x", "y", "\n\nHuman:"])]
)
def test_the_endings_of_training_join_those_of_a_request(behind: TestClient, own: Any, stop: list[str]) -> None:
    reply = behind.post(CHAT, json={"model": "m", "stop": own}).json()
    assert json.loads(reply["body"]) == {"model": "m", "stop": stop, "stop_token_ids": [7]}
    assert int(reply["announced"]) == len(reply["body"])


@pytest.mark.parametrize("body", ["{", "[]", "3", '{"stop": 3}', "[" * 5000])
def test_what_is_no_chat_request_is_left_to_vllm(behind: TestClient, body: str) -> None:
    assert behind.post(CHAT, content=body).json()["body"] == body


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_what_is_no_chat_passes_as_it_is(behind: TestClient, path: str) -> None:
    assert behind.get(path).json() == {"body": "", "announced": None}


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/invocations", "/tokenize", "/pause", "/update_weights", "/metrics", "/docs", "/v1/completions"),
        *(
            "/v1/chat/completions/",
            "//v1/chat/completions",
            "/v1/chat/completions/render",
            "/V1/models",
            "/v1/load_lora",
        ),
    ],
)
def test_nothing_else_of_vllm_is_there(behind: TestClient, locked: TestClient, path: str) -> None:
    # An absolute address: "//v1" would be taken for a host.
    for client, headers in ((behind, {}), (locked, {"Authorization": "Bearer s3cret-é".encode()})):
        reply = client.post(f"http://127.0.0.1{path}", content="{}", headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_no_websocket_is_opened(behind: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), behind.websocket_connect("/v1/realtime"):
        pass


@pytest.mark.parametrize("path", ["/health", "/v1/models", CHAT])
def test_a_large_body_is_refused_whether_announced_or_not(behind: TestClient, path: str) -> None:
    for content in ("x" * (MAX_BODY + 1), iter([b"x" * 1000] * 6)):
        reply = behind.post(path, content=content)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert behind.post(path, content=b" " * MAX_BODY).status_code == 200


def test_without_a_key_only_names_of_this_machine_are_answered(behind: TestClient) -> None:
    for own in ("127.0.0.1:8000", "LocalHost", "[::1]:8000"):
        assert behind.get("/v1/models", headers={"Host": own}).status_code == 200
    for other in ("attacker.example", "127.0.0.1.attacker.example", "127.0.0.1@attacker.example", "[::1].example", ""):
        for path in ("/health", "/v1/models", CHAT):
            assert behind.post(path, content="{}", headers={"Host": other}).status_code == 400


def test_with_a_key_all_but_the_health_check_ask_for_it(locked: TestClient) -> None:
    assert locked.get("/health", headers={"Host": "probe.example"}).status_code == 200
    # What comes behind the slash has made some versions of vLLM take this for another path, that needs no key.
    for headers in (
        {},
        {"Authorization": "Bearer other"},
        {"Authorization": "s3cret-é".encode()},
        {"Host": "a/health?"},
    ):
        for path in ("/v1/models", CHAT):
            reply = locked.post(path, content="{}", headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    right = {"Authorization": "Bearer s3cret-é".encode(), "Host": "clha.example"}
    assert locked.post(CHAT, content="{}", headers=right).status_code == 200
