"""The readers of what users bring: each takes any bytes, and either reads them, counting rows, or says a sentence.

A reader here returns normally or raises `UserError`; anything else that it raises would be a traceback. Where there
are rows, they are counted a second time from the bytes, so that a lost one is found.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from clha_core import paths
from clha_core.assessment.key import Key, KeyItem, read_key
from clha_core.assessment.results import assess, read_verdicts
from clha_core.assessment.table import print_results
from clha_core.assessment.votes import read_ballots
from clha_core.candidates.files import FileReport, RowIndex, read_file
from clha_core.data.ingest import ingest
from clha_core.errors import UserError
from clha_core.judging.labels import LABELS
from clha_core.judging.prompt import parse_verdict
from clha_core.params import Params, load_params, parse_params
from clha_core.params.rewrite import rewrite_params

ROOT = Path(__file__).resolve().parents[1]


class RowsLost(Exception):
    """More rows went in than came out."""


@dataclass(frozen=True)
class Reader:
    """What is fed: `valid` are files to make wrong; `read` takes the bytes and an empty folder to work in."""

    name: str
    valid: tuple[bytes, ...]
    read: Callable[[bytes, Path], None]
    pack: Callable[[bytes], bytes] = bytes  # after it was made wrong


def _project_params() -> Params:
    values = yaml.safe_load((ROOT / paths.PARAMS).read_text(encoding="utf-8"))
    values["data"] |= {"source": "local", "subsets": [], "validation_share": 0.2}
    return parse_params(values, "params.yaml")


def _dialogue(number: int, reply: str) -> str:
    return f"\n\nHuman: Question {number}?\n\nAssistant: Well.\n\nHuman: And now, é?\n\nAssistant: {reply} {number}"


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(rows)).encode()


HH_ROWS = _lines([{"chosen": _dialogue(i, "Good"), "rejected": _dialogue(i, "Bad")} for i in range(12)])
MESSAGES = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes 🙂."}]
TRL_ROWS = _lines(
    [
        {"prompt": f"Question {i}?", "chosen": "Good.", "rejected": "Bad.", "augmented": ["So so."]}
        if i % 2
        else {
            "prompt": MESSAGES[:1],
            "chosen": MESSAGES[1:],
            "rejected": [{"role": "assistant", "content": f"No {i}."}],
        }
        for i in range(12)
    ]
)
TEST_ROWS = _lines([{"chosen": _dialogue(i, "Good"), "rejected": _dialogue(i, "Bad")} for i in (100, 101)])


def _filled(data: bytes) -> int:
    """Lines that are not blank, of a file that may begin with a byte order mark."""
    return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def _ingest(file: str, data: bytes, plain: bytes | None, folder: Path) -> None:
    """`plain` is what `data` unpacks to; None if it does not, and then ingest has to refuse it."""
    subset = folder / "data" / "mine"
    subset.mkdir(parents=True)
    (subset / "test.jsonl").write_bytes(TEST_ROWS)
    (subset / file).write_bytes(data)
    params = _PARAMS.model_copy(update={"data": _PARAMS.data.model_copy(update={"path": str(folder / "data")})})
    report = ingest(params, folder / "out")
    if plain is None:
        raise RowsLost(f"a damaged {file} was taken for a whole one")
    expected = _filled(plain) + _filled(TEST_ROWS)
    quarantine = (folder / "out" / paths.QUARANTINE).read_bytes().splitlines()
    kept = sum(pq.read_metadata(folder / "out" / f"{split}.parquet").num_rows for split in paths.SPLITS)
    for line in quarantine:
        json.loads(line)
    if not expected == report.rows_in == kept + len(quarantine) or report.quarantined != len(quarantine):
        raise RowsLost(f"{expected} rows in the files, {report.rows_in} read, {kept} kept, {len(quarantine)} set aside")


def _jsonl(data: bytes, folder: Path) -> None:
    _ingest("train.jsonl", data, data, folder)


def _gzip(data: bytes, folder: Path) -> None:
    try:
        plain = gzip.decompress(data)
    except (EOFError, zlib.error, OSError):
        plain = None
    _ingest("train.jsonl.gz", data, plain, folder)


_INDEXED = [{"id": f"mine/train/{i:06d}", "prompt": [{"role": "user", "content": f"Question {i}?"}]} for i in range(4)]
CANDIDATE_ROWS = _lines(
    [{"id": row["id"], "response": "A further answer."} for row in _INDEXED]
    + [{"prompt": f"Question {i}?", "responses": ["One.", "Two."]} for i in range(4)]
)


def _candidates(data: bytes, folder: Path) -> None:
    file = folder / "mine.jsonl"
    file.write_bytes(data)
    report = FileReport()
    with (folder / "quarantine.jsonl").open("w", encoding="utf-8") as quarantine:
        for _ in read_file(file, RowIndex(_INDEXED), report, quarantine):
            pass
    set_aside = (folder / "quarantine.jsonl").read_bytes().splitlines()
    for line in set_aside:
        json.loads(line)
    if not _filled(data) == report.rows_in == report.accepted + len(set_aside):
        raise RowsLost(f"{_filled(data)} lines in the file, {report}, {len(set_aside)} set aside")


def _params(data: bytes, folder: Path) -> None:
    (folder / "params.yaml").write_bytes(data)
    load_params(folder / "params.yaml")


def _rewrite(data: bytes, folder: Path) -> None:
    file = folder / "params.yaml"
    file.write_bytes(data)
    try:
        rewrite_params(file, {"data.source": "local", "train.lora.rank": 4}, "preset local")
    except UserError:
        if file.read_bytes() != data:
            raise RowsLost("a params.yaml that could not be rewritten was changed") from None
        raise


def _verdict(data: bytes, folder: Path) -> None:
    try:
        parse_verdict(data.decode("utf-8", errors="replace"))
    except ValueError as error:  # what the endpoint's client counts as an unreadable reply, and asks again
        raise UserError(str(error)) from None


_KEY = Key(
    export="e1",
    system="aligned",
    against="sft",
    seed=1,
    items=[
        KeyItem(id=f"r{i}", subset="mine", pair=f"p{i}", item=f"{i:03d}", a="sft" if i % 2 else "aligned")
        for i in range(6)
    ],
    identical=[],
)
_ITEMS = [item.item for item in _KEY.items]


def _assess(file: str, data: bytes, folder: Path, count: Callable[[str], int]) -> None:
    (folder / file).write_bytes(data)
    ballots = read_ballots([folder / file], _KEY)
    found = sum(len(ballot.votes) + ballot.repeated for ballot in ballots)
    if found != (expected := count(data.decode("utf-8-sig"))):
        raise RowsLost(f"{expected} votes in the file, {found} found")
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as terminal:
        print_results(assess(_KEY, ballots, _PARAMS.evaluate), Console(file=terminal))


def _page(data: bytes, folder: Path) -> None:
    _assess("rater.json", data, folder, lambda text: sum(bool(vote["vote"]) for vote in json.loads(text)["votes"]))


def _sheet(data: bytes, folder: Path) -> None:
    def votes(text: str) -> int:
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        return sum(bool(row["vote"].strip()) for row in rows)

    _assess("rater.csv", data, folder, votes)


def _label_studio(data: bytes, folder: Path) -> None:
    def votes(text: str) -> int:
        answers = [answer for task in json.loads(text) for answer in task["annotations"]]
        return sum(
            bool(answer.get("was_cancelled")) or any(result["from_name"] == "vote" for result in answer["result"])
            for answer in answers
        )

    _assess("rater.json", data, folder, votes)


def _key(data: bytes, folder: Path) -> None:
    (folder / "key.json").write_bytes(data)
    read_key(folder / "key.json")


def _verdict_table(data: bytes, folder: Path) -> None:
    (folder / "verdicts.parquet").write_bytes(data)
    read_verdicts(folder / "verdicts.parquet", _KEY)


def _parquet() -> bytes:
    table = pd.DataFrame(
        {"pair": ["p0", "p1"], "outcome": pd.array([1, None], "Int8"), "system": "aligned", "against": "sft"}
    )
    stream = io.BytesIO()
    table.to_parquet(stream, index=False)
    return stream.getvalue()


_VOTED = [{"item": item, "vote": LABELS[i % 5] if i else "skip", "comment": "fine"} for i, item in enumerate(_ITEMS)]
PAGE = json.dumps({"format": "clha-votes", "export": "e1", "rater": "Ann", "votes": _VOTED}).encode()
SHEET = "\ufeffexport,item,question,prompt,A,B,vote,comment\r\n" + "".join(
    f'e1,{vote["item"]},Which?,"a\n""b""",x,y,{vote["vote"]},"{vote["comment"]}"\r\n' for vote in _VOTED
)
TASKS = json.dumps(
    [
        {
            "data": {"export": "e1", "item": vote["item"]},
            "annotations": [
                {
                    "completed_by": {"email": "ann@example.com"},
                    "was_cancelled": False,
                    "result": [
                        {"from_name": "vote", "value": {"choices": [vote["vote"]]}},
                        {"from_name": "comment", "value": {"text": [vote["comment"]]}},
                    ],
                }
            ],
        }
        for vote in _VOTED
    ]
).encode()
REPLIES = (
    b'{"reason": "A says more.", "label": "A better"}',
    b'Let me think. {"a": 1}\n```json\n{"label": "tie", "reason": "both {are} fine"}\n```',
)

_PARAMS = _project_params()
PARAMS_FILE = (ROOT / paths.PARAMS).read_bytes()
READERS = (
    Reader("jsonl", (HH_ROWS, TRL_ROWS), _jsonl),
    Reader("gzip", (gzip.compress(HH_ROWS, mtime=0), gzip.compress(TRL_ROWS, mtime=0)), _gzip),
    Reader("gzip of wrong lines", (HH_ROWS, TRL_ROWS), _gzip, pack=gzip.compress),
    Reader("candidates", (CANDIDATE_ROWS,), _candidates),
    Reader("params", (PARAMS_FILE,), _params),
    Reader("rewriting params", (PARAMS_FILE,), _rewrite),
    Reader("verdicts", REPLIES, _verdict),
    Reader("table of verdicts", (_parquet(),), _verdict_table),
    Reader("votes: page", (PAGE,), _page),
    Reader("votes: sheet", (SHEET.encode(),), _sheet),
    Reader("votes: Label Studio", (TASKS,), _label_studio),
    Reader("key", (_KEY.model_dump_json().encode(),), _key),
)
