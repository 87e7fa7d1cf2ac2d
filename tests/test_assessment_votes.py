"""Raters' files: what is accepted, what is counted, what is refused."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from answers import AGAINST, SYSTEM, generations, write_generations

from clha_core.assessment.blind import BlindSet, blind
from clha_core.assessment.key import Key
from clha_core.assessment.sheet import write_sheet
from clha_core.assessment.votes import SKIP, VOTES_FORMAT, read_ballots
from clha_core.errors import UserError
from clha_core.judging.pairs import read_pairs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[BlindSet, Key]:
    path = write_generations(generations(4), tmp_path_factory.mktemp("export"))
    return blind(read_pairs(path, SYSTEM, AGAINST), SYSTEM, AGAINST, seed=1)


@pytest.fixture(scope="module")
def key(exported: tuple[BlindSet, Key]) -> Key:
    return exported[1]


def saved(folder: Path, key: Key, votes: Mapping[str, str | None], /, rater: str = "Ana", **changes: Any) -> Path:
    """A file as the page saves it."""
    path = folder / f"votes-{len(list(folder.iterdir()))}.json"
    content = {
        "format": VOTES_FORMAT,
        "export": key.export,
        "rater": rater,
        "votes": [{"item": item, "vote": vote, "comment": ""} for item, vote in votes.items()],
    }
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def filled_sheet(folder: Path, exported: BlindSet, votes: Mapping[str, str], delimiter: str = ",") -> Path:
    """The CSV file after a spreadsheet program: numbers lost their zeros."""
    write_sheet(exported, folder / "blank.csv")
    with (folder / "blank.csv").open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    path = folder / "Ben.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), delimiter=delimiter)
        writer.writeheader()
        for line in lines:
            writer.writerow(line | {"item": int(line["item"]), "vote": votes.get(line["item"], "")})
    return path


def annotated(folder: Path, exported: BlindSet, annotations: Mapping[str, list[dict[str, Any]]]) -> Path:
    """Label Studio's JSON export."""
    path = folder / "label-studio.json"
    tasks = [
        {"data": {"export": exported.export, "item": item.item}, "annotations": annotations.get(item.item, [])}
        for item in exported.items
    ]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


def choice(label: str, by: object, comment: str = "") -> dict[str, Any]:
    result: list[dict[str, Any]] = [{"from_name": "vote", "type": "choices", "value": {"choices": [label]}}]
    if comment:
        result.append({"from_name": "comment", "type": "textarea", "value": {"text": [comment]}})
    return {"completed_by": by, "was_cancelled": False, "result": result}


def test_votes_of_the_page_are_read(tmp_path: Path, key: Key) -> None:
    (ballot,) = read_ballots([saved(tmp_path, key, {"001": "A better", "002": SKIP, "003": None})], key)
    assert (ballot.rater, ballot.votes) == ("Ana", {"001": "A better", "002": SKIP})


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_filled_in_sheet_is_read_whatever_the_spreadsheet_made_of_it(
    tmp_path: Path, exported: tuple[BlindSet, Key], delimiter: str
) -> None:
    votes = {"001": "a MUCH better ", "002": "4", "003": "0"}
    (ballot,) = read_ballots([filled_sheet(tmp_path, exported[0], votes, delimiter)], exported[1])
    assert ballot.rater == "Ben"
    assert ballot.votes == {"001": "A much better", "002": "B better", "003": SKIP}


def test_label_studios_export_holds_several_raters(tmp_path: Path, exported: tuple[BlindSet, Key]) -> None:
    annotations = {
        "001": [choice("tie", 7), choice("B better", {"id": 8, "email": "ben@example.com"}, "too rude")],
        "002": [{"completed_by": 7, "was_cancelled": True, "result": []}],
    }
    seven, ben = read_ballots([annotated(tmp_path, exported[0], annotations)], exported[1])
    assert (ben.rater, ben.votes, ben.comments) == ("ben@example.com", {"001": "B better"}, {"001": "too rude"})
    assert (seven.rater, seven.votes) == ("Label Studio user 7", {"001": "tie", "002": SKIP})


def test_a_rater_who_saved_twice_is_one_rater(tmp_path: Path, key: Key) -> None:
    partly, later = saved(tmp_path, key, {"001": "tie"}), saved(tmp_path, key, {"001": "tie", "002": "A better"})
    (ballot,) = read_ballots([partly, later], key)
    assert ballot.votes == {"001": "tie", "002": "A better"}
    assert ballot.repeated == 1


def test_two_different_votes_on_one_item_are_refused(tmp_path: Path, key: Key) -> None:
    files = [saved(tmp_path, key, {"001": "tie"}), saved(tmp_path, key, {"001": "A better"})]
    with pytest.raises(UserError, match="Ana voted twice on item 001, 'tie' and 'A better'"):
        read_ballots(files, key)


@pytest.mark.parametrize(
    ("votes", "changes", "sentence"),
    [
        ({"001": "tie"}, {"export": "0" * 16}, "belongs to another export"),
        ({"099": "tie"}, {}, "there is no item '099'"),
        ({"001": "A is best"}, {}, "'A is best' is no vote; use one of A much better"),
        ({"001": "tie"}, {"format": "other"}, "not a file of votes"),
        ({"001": "tie"}, {"rater": " "}, "not a file of votes"),
        ({"001": "tie"}, {"votes": None}, "not a file of votes"),
        ({}, {}, "no votes in these files"),
        ({"001": None}, {}, "Ana has not voted on anything"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    tmp_path: Path, key: Key, votes: dict[str, str | None], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read_ballots([saved(tmp_path, key, votes, **changes)], key)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("votes.json", b"{", "not a file of votes"),
        ("votes.json", b"3", "not a file of votes"),
        ("votes.json", b'[{"data": {}}]', "not a file of votes"),
        ("votes.csv", b"item,vote\n001,tie\n", "not a file of votes"),
        ("votes.csv", "export,item,vote,comment\n0,1,tie,\xe9".encode("latin-1"), "CSV UTF-8"),
    ],
)
def test_what_is_no_file_of_votes_is_refused(
    tmp_path: Path, key: Key, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_ballots([tmp_path / name], key)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, key: Key) -> None:
    with pytest.raises(UserError, match=r"gone\.json cannot be read"):
        read_ballots([tmp_path / "gone.json"], key)
