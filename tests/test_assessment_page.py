"""The raters' page in a real browser, opened as a file: voting by keyboard, coming back, saving, importing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from answers import AGAINST, HOSTILE, SYSTEM, generations, write_generations
from browser import chromium
from playwright.sync_api import Browser, BrowserContext, Page, expect

from clha_core.assessment.blind import BlindSet, blind
from clha_core.assessment.key import Key
from clha_core.assessment.page import write_assessment_page
from clha_core.assessment.results import assess
from clha_core.assessment.votes import SKIP, Ballot, read_ballots
from clha_core.judging.labels import LABELS
from clha_core.judging.pairs import read_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BlindSet, Key]:
    """A page with six pairs; all texts of the first are hostile, an answer of the second is empty."""
    folder = tmp_path_factory.mktemp("assessment")
    rows = generations(6)
    pairs = read_pairs(write_generations(rows, folder), SYSTEM, AGAINST)
    _, key = blind(pairs, SYSTEM, AGAINST, seed=1)
    first, second = (rows["id"] == key.items[place].id for place in (0, 1))
    rows.loc[first, ["prompt", f"{SYSTEM}_response"]] = HOSTILE
    rows.loc[first, f"{AGAINST}_response"] = f"{HOSTILE} again"
    rows.loc[second, f"{AGAINST}_response"] = ""
    shown, key = blind(read_pairs(write_generations(rows, folder), SYSTEM, AGAINST), SYSTEM, AGAINST, seed=1)
    write_assessment_page(shown, folder / "assessment.html")
    return folder / "assessment.html", shown, key


@contextmanager
def watched(context: BrowserContext) -> Iterator[Page]:
    """A page in which no script fails and which asks nothing of any server."""
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "blob:")) else errors.append(request.url)
    )
    yield page
    assert errors == []
    page.close()


@pytest.fixture
def page(browser: Browser, exported: tuple[Path, BlindSet, Key]) -> Iterator[Page]:
    context = browser.new_context()
    with watched(context) as opened:
        opened.goto(exported[0].as_uri())
        yield opened
    context.close()


def start(page: Page, name: str = "Ana  Müller") -> None:
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")


def press(page: Page, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def saved(page: Page, folder: Path, press_save: Callable[[], None]) -> Path:
    with page.expect_download() as download:
        press_save()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def item_number(page: Page) -> int:
    return int(page.locator("#question").inner_text().split(".")[0])


def test_votes_by_keyboard_survive_a_reload_and_are_imported(
    page: Page, exported: tuple[Path, BlindSet, Key], tmp_path: Path, make_params: Callable
) -> None:
    _, _, key = exported
    start(page)
    press(page, "1 2 3")
    page.reload()
    expect(page.locator("#count")).to_have_text("3 of 6, unsaved")
    assert item_number(page) == 4
    press(page, "c")
    page.keyboard.type("Both say 5 and 0, u see.")  # keys of the page, which are text here
    press(page, "Escape 4 5 0")
    expect(page.get_by_text("All 6 done. Thank you.")).to_be_visible()

    file = saved(page, tmp_path, lambda: press(page, "Control+s"))
    expect(page.locator("#count")).to_have_text("6 of 6")
    assert file.name == "votes-Ana-Müller.json"
    (ballot,) = read_ballots([file], key)
    labels = dict(zip((item.item for item in key.items), [*LABELS, SKIP], strict=True))
    assert ballot == Ballot("Ana Müller", labels, {"004": "Both say 5 and 0, u see."})
    results = assess(key, [ballot], make_params({"evaluate.bootstrap_samples": 100}).evaluate)
    assert results["majority"]["total"]["pairs"] == 5


def test_a_vote_can_be_taken_back_and_changed(page: Page, exported: tuple[Path, BlindSet, Key], tmp_path: Path) -> None:
    start(page)
    press(page, "1 1 u")  # back on item 2, without its vote
    assert item_number(page) == 2
    expect(page.locator("#count")).to_have_text("1 of 6, unsaved")
    press(page, "ArrowLeft 5")  # another vote on item 1; then item 2 is the next without a vote
    assert item_number(page) == 2
    press(page, "u")  # the change of item 1 is taken back: its first vote is there again
    expect(page.get_by_role("button", name="A much better")).to_have_attribute("aria-pressed", "true")
    press(page, "ArrowRight ArrowRight n")
    assert item_number(page) == 3
    file = saved(page, tmp_path, lambda: page.get_by_role("button", name="Save votes").click())
    assert read_ballots([file], exported[2])[0].votes == {"001": "A much better"}


def test_the_mouse_does_what_the_keyboard_does(page: Page) -> None:
    start(page)
    page.get_by_role("button", name="B much better").click()
    page.get_by_role("button", name="Skip").click()
    expect(page.locator("#count")).to_have_text("2 of 6, unsaved")
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_role("button", name="Skip")).to_have_attribute("aria-pressed", "true")


def test_keys_with_control_and_keys_that_are_held_do_not_vote(page: Page) -> None:
    start(page)
    press(page, "Control+1 Alt+2")
    expect(page.locator("#count")).to_have_text("0 of 6")
    page.keyboard.down("3")
    page.keyboard.down("3")  # the browser repeats a key that is held
    page.keyboard.up("3")
    expect(page.locator("#count")).to_have_text("1 of 6, unsaved")


def test_hostile_and_empty_texts_are_shown_as_they_are(page: Page, exported: tuple[Path, BlindSet, Key]) -> None:
    first = exported[1].items[0]
    start(page)
    for name, text in (("prompt", first.prompt), ("a", first.a), ("b", first.b)):
        assert page.locator(f"#{name}").text_content() == text
    assert page.locator("main img, main b:visible").count() == 0
    assert page.title() == "Which answer is better?"
    press(page, "ArrowRight")
    expect(page.locator(".answers .empty")).to_have_text("(no text)")


def test_raters_share_a_browser_without_sharing_votes(page: Page) -> None:
    start(page, "Ana")
    press(page, "1 1")
    page.get_by_role("button", name="Ana").click()
    start(page, "Ben")
    expect(page.locator("#count")).to_have_text("0 of 6")
    page.get_by_role("button", name="Ben").click()
    start(page, "Ana")
    expect(page.locator("#count")).to_have_text("2 of 6, unsaved")


def test_two_tabs_lose_no_votes(page: Page) -> None:
    start(page, "Ana")
    with watched(page.context) as other:
        other.goto(page.url)
        press(other, "1")
        expect(page.locator("#count")).to_have_text("1 of 6, unsaved")
        press(page, "n 2")
        expect(other.locator("#count")).to_have_text("2 of 6, unsaved")


def test_a_browser_that_keeps_nothing_says_so_and_still_saves(page: Page, tmp_path: Path) -> None:
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })")
    page.reload()
    start(page)
    expect(page.get_by_text("does not keep votes")).to_be_visible()
    press(page, "1")
    assert saved(page, tmp_path, lambda: press(page, "Control+s")).exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(
    browser: Browser, exported: tuple[Path, BlindSet, Key], scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    with watched(context) as page:
        page.goto(exported[0].as_uri())
        start(page, "Somebody with a rather long name")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for label in LABELS:
            expect(page.get_by_role("button", name=label.replace("tie", "Tie"), exact=True)).to_be_in_viewport(ratio=1)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
        assert dark == (scheme == "dark")
    context.close()
