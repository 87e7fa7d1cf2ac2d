"""What raters get, and what they cannot learn from it."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from answers import AGAINST, HOSTILE, SYSTEM, generations, write_generations
from hypothesis import given
from hypothesis import strategies as st

from clha_core.assessment.blind import BlindSet, blind
from clha_core.assessment.key import Key, read_key, write_key
from clha_core.assessment.label_studio import write_tasks
from clha_core.assessment.page import write_assessment_page
from clha_core.assessment.sheet import write_sheet
from clha_core.errors import UserError
from clha_core.judging.labels import LABELS
from clha_core.judging.pairs import read_pairs, sample_pairs


def pairs_of(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    return read_pairs(write_generations(rows, folder), SYSTEM, AGAINST)


def blinded(rows: pd.DataFrame, folder: Path, seed: int = 1) -> tuple[BlindSet, Key]:
    return blind(pairs_of(rows, folder), SYSTEM, AGAINST, seed=seed)


@pytest.fixture(scope="module")
def many_pairs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pairs_of(generations(60, identical=7), tmp_path_factory.mktemp("pairs"))


@given(count=st.integers(1, 70), seed=st.integers(0, 1000))
def test_the_key_tells_who_wrote_what_and_each_system_is_a_in_half_of_the_items(
    many_pairs: pd.DataFrame, count: int, seed: int
) -> None:
    drawn = sample_pairs(many_pairs, count, seed)
    if drawn["identical"].all():
        return
    shown, key = blind(drawn, SYSTEM, AGAINST, seed=seed)

    texts = drawn.set_index("id")
    for item, opened in zip(shown.items, key.items, strict=True):
        a, b = texts.loc[opened.id, ["response", "other"]]
        assert (item.item, item.a, item.b) == (opened.item, *((a, b) if opened.a == SYSTEM else (b, a)))
    assert abs(2 * sum(item.a == SYSTEM for item in key.items) - len(key.items)) <= 1
    assert {item.id for item in [*key.items, *key.identical]} == set(drawn["id"])


def test_the_same_seed_gives_the_same_set_and_another_seed_another(many_pairs: pd.DataFrame) -> None:
    first, again, other = (blind(many_pairs, SYSTEM, AGAINST, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[0].export != other[0].export
    assert [item.id for item in first[1].items] != [item.id for item in other[1].items]
    assert [item.a for item in first[1].items] != [item.a for item in other[1].items]


def test_identical_answers_are_not_shown_but_kept_in_the_key(tmp_path: Path) -> None:
    shown, key = blinded(generations(8, identical=3), tmp_path)
    assert len(shown.items) == len(key.items) == 5
    assert {pair.id for pair in key.identical} == {"row-0005", "row-0006", "row-0007"}


def test_answers_that_are_all_identical_are_nothing_to_assess(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="identical answers to all 4 prompts"):
        blinded(generations(4, identical=4), tmp_path)


def test_an_empty_answer_is_shown(tmp_path: Path) -> None:
    rows = generations(4)
    rows.loc[0, f"{SYSTEM}_response"] = "  "
    shown, _ = blinded(rows, tmp_path)
    assert "" in {text for item in shown.items for text in (item.a, item.b)}


def test_the_criterion_follows_the_subset(tmp_path: Path) -> None:
    shown, key = blinded(generations(6), tmp_path)
    for item, opened in zip(shown.items, key.items, strict=True):
        assert opened.subset.startswith("harmless" if item.criterion == "harmless" else "helpful")


@pytest.mark.parametrize("kind", ["html", "csv", "label-studio"])
def test_nothing_that_raters_get_tells_the_systems_apart(tmp_path: Path, kind: str) -> None:
    rows = generations(12)
    shown, key = blinded(rows, tmp_path, seed=918273)
    out = tmp_path / "for-raters"
    if kind == "html":
        write_assessment_page(shown, out / "assessment.html")
    elif kind == "csv":
        write_sheet(shown, out / "assessment.csv")
    else:
        write_tasks(shown, out)

    files = [path for path in out.rglob("*") if path.is_file()]
    everything = "".join(f"{path.name} {path.read_text(encoding='utf-8')}" for path in files)
    assert shown.items[0].a in everything
    secrets = [SYSTEM, AGAINST, "918273", "reward", *(item.id for item in key.items), *(i.pair for i in key.items)]
    assert [secret for secret in secrets if secret in everything] == []


class Elements(HTMLParser):
    """Start tags of a page, and the text of the element with the id `data`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.data = ""
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        self.data += data if self._inside else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def test_hostile_text_is_data_in_the_page(tmp_path: Path) -> None:
    rows = generations(3)
    rows[f"{SYSTEM}_response"] = HOSTILE
    rows["prompt"] = HOSTILE
    shown, _ = blinded(rows, tmp_path)
    write_assessment_page(shown, tmp_path / "assessment.html")

    page = Elements((tmp_path / "assessment.html").read_text(encoding="utf-8"))
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    items = json.loads(page.data)["items"]
    assert all(item["prompt"] == HOSTILE and HOSTILE in (item["a"], item["b"]) for item in items)


def test_the_page_asks_no_server(tmp_path: Path) -> None:
    shown, _ = blinded(generations(3), tmp_path)
    write_assessment_page(shown, tmp_path / "assessment.html")
    text = (tmp_path / "assessment.html").read_text(encoding="utf-8")
    assert not [word for word in ("http:", "https:", "src=", "@import", "url(", "fetch(") if word in text]


def test_a_sheet_runs_no_formula_of_a_model(tmp_path: Path) -> None:
    rows = generations(3)
    rows[f"{SYSTEM}_response"] = ['=HYPERLINK("x")', "- a list\n- in lines", "plain, with a comma"]
    shown, _ = blinded(rows, tmp_path)
    write_sheet(shown, tmp_path / "assessment.csv")

    with (tmp_path / "assessment.csv").open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    texts = {text for line in lines for text in (line["A"], line["B"])}
    assert {'\'=HYPERLINK("x")', "'- a list\n- in lines", "plain, with a comma"} <= texts
    assert {line["vote"] for line in lines} == {""}


def test_label_studio_tasks_fit_their_interface(tmp_path: Path) -> None:
    shown, _ = blinded(generations(3), tmp_path)
    write_tasks(shown, tmp_path)
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    interface = ET.parse(tmp_path / "interface.xml").getroot()

    fields = {value[1:] for node in interface.iter() if (value := node.get("value", "")).startswith("$")}
    assert fields <= set(tasks[0]["data"])
    assert [choice.get("value") for choice in interface.iter("Choice")] == list(LABELS)


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    _, key = blinded(generations(5, identical=1), tmp_path)
    write_key(key, tmp_path / "key.json")
    assert read_key(tmp_path / "key.json") == key


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": "clha-votes"}', "\x00"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "key.json").write_text(content)
    with pytest.raises(UserError, match=r"give --key the key\.json"):
        read_key(tmp_path / "key.json")


@pytest.mark.parametrize(
    ("system", "against", "sentence"),
    [
        ("quoka", AGAINST, "no answers of 'quoka'; it has: quokka, numbat, human"),
        (SYSTEM, SYSTEM, "cannot be compared with itself"),
    ],
)
def test_systems_that_cannot_be_compared_are_refused(tmp_path: Path, system: str, against: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_pairs(write_generations(generations(), tmp_path), system, against)


def test_the_human_answers_are_a_system_too(tmp_path: Path) -> None:
    pairs = read_pairs(write_generations(generations(), tmp_path), SYSTEM, "human")
    assert pairs["other"].str.startswith("The human answer").all()
    assert "reward_difference" in pairs
    assert "gold_difference" not in pairs


def test_a_table_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro evaluate"):
        read_pairs(tmp_path / "generations.parquet", SYSTEM, AGAINST)


def test_a_reward_that_is_no_number_is_refused(tmp_path: Path) -> None:
    rows = generations(3)
    rows.loc[1, f"{SYSTEM}_reward"] = float("nan")
    with pytest.raises(UserError, match="reward_difference that is not finite"):
        read_pairs(write_generations(rows, tmp_path), SYSTEM, AGAINST)


def test_a_prompt_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    rows = generations(3)
    rows["id"] = "row-0000"
    with pytest.raises(UserError, match="'row-0000' twice"):
        read_pairs(write_generations(rows, tmp_path), SYSTEM, AGAINST)
