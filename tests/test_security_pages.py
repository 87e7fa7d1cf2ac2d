"""Hostile dialogues in every page of ours, opened in a real browser: no script of theirs runs and no request leaves."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from answers import AGAINST, SYSTEM, generations, write_generations
from browser import chromium
from playwright.sync_api import Browser
from rescored import pairs_of, row
from test_compare import evaluation
from test_evaluation_report import CURVES, answers, report
from test_validate import Ingested

from clha_core.assessment.blind import blind
from clha_core.assessment.page import write_assessment_page
from clha_core.comparison.compare import Side, compare
from clha_core.comparison.page import comparison_page
from clha_core.judging.pairs import read_pairs
from clha_core.params import Params
from clha_core.paths import DATA_DOCS
from clha_core.rescoring.noise.report import summarise, write_report

pytestmark = pytest.mark.slow
EVIL = "http://evil.invalid"
RUNS = "document.title='caught'"
ATTACKS = (
    f"<script>{RUNS}</script>",
    f"</script><script>{RUNS}</script>",
    f"--></style></textarea></title></option></select><script>{RUNS}</script>",
    f'<img src=x onerror="{RUNS}">',
    f'" autofocus onfocus="{RUNS}" x=\'',
    f"' onmouseover='{RUNS}",
    f'<svg onload="{RUNS}"><a href="javascript:{RUNS}">x</a></svg>',
    f'<iframe src="javascript:parent.{RUNS}"></iframe><iframe srcdoc="<script>parent.{RUNS}</script>"></iframe>',
    f'<img src="{EVIL}/pixel"><link rel=stylesheet href="{EVIL}/x.css"><style>@import "{EVIL}/y.css";</style>',
    f'<meta http-equiv=refresh content="0;url={EVIL}/moved"><base href="{EVIL}/"><input autofocus>',
    "{{ 7 * 7 }} {% raw %} ${7 * 7} $observed_value &lt;script&gt; \u2028 \u202e $\\frac{1}{2}$",
)
HOSTILE = " ".join(ATTACKS)
MakeParams = Callable[..., Params]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, make_params: MakeParams) -> dict[str, Path]:
    """All pages that show data, each by the code that writes it."""
    folder = tmp_path_factory.mktemp("pages")
    params = make_params({"evaluate.bootstrap_samples": 100}).model_copy(deep=True)
    params.policy.model = HOSTILE
    texts = ["id", "subset", "prompt", "human_chosen", *(f"{name}_response" for name in ("base", "sft", "aligned"))]
    rows = answers()
    for number, column in enumerate(texts):
        rows[column] = [
            f"{place} {HOSTILE} {number}" if column == "id" else f"{HOSTILE} {number}" for place in range(12)
        ]
    found = {"evaluation": report(rows, params, folder / "evaluation", CURVES.rename(columns={"loss": HOSTILE}))}
    sides = [Side(evaluation(f"{HOSTILE} {name}", rows)) for name in "ab"]
    found["comparison"] = comparison_page(compare(*sides, params.evaluate), params.evaluate, folder / "comparison.html")

    hostile = [
        row(number, 0, 1 + number, subset=HOSTILE, prompt=HOSTILE, response=HOSTILE) | {"id": f"{number} {HOSTILE}"}
        for number in range(3)
    ]
    pairs = pairs_of(hostile)
    write_report(pairs, summarise(pairs), folder / "noise")
    found["noise"] = folder / "noise" / "report.html"

    asked = generations(4)
    asked["prompt"] = HOSTILE
    asked[[f"{SYSTEM}_response", f"{AGAINST}_response"]] = [[f"{HOSTILE} a", f"{HOSTILE} b"]] * 4
    shown, _ = blind(read_pairs(write_generations(asked, folder), SYSTEM, AGAINST), SYSTEM, AGAINST, seed=1)
    found["assessment"] = folder / "assessment.html"
    write_assessment_page(shown, found["assessment"])

    ingested = Ingested(folder / "validated", make_params)
    for number, one in enumerate(ingested.rows["train"][:5]):
        one |= {"id": f"{number} {HOSTILE}", "subset": HOSTILE, "responses": [HOSTILE, HOSTILE]}
    assert ingested.failures()
    found["data quality"] = folder / "validated" / DATA_DOCS / "index.html"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


def opened(browser: Browser, path: Path) -> tuple[list[str], str, str]:
    """What a page asked for beyond itself, its title after all that could run has run, and its text."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url) if request.url != path.as_uri() else None)
    # What the page's policy forbids fails before it leaves.
    page.on("requestfailed", lambda request: asked.append(request.url) if request.failure != "csp" else None)
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.goto(path.as_uri())
    if page.locator("#enter").count():
        page.get_by_label("Your name").fill(HOSTILE)
        page.keyboard.press("Enter")
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    page.wait_for_timeout(100)
    answer = asked, page.title(), page.locator("body").text_content() or ""
    page.close()
    return answer


@pytest.mark.parametrize("name", ["evaluation", "comparison", "noise", "assessment", "data quality"])
def test_hostile_texts_are_text_in_a_browser(browser: Browser, pages: dict[str, Path], name: str) -> None:
    asked, title, text = opened(browser, pages[name])
    assert asked == []
    assert title not in ("", "caught")
    assert ATTACKS[0] in text
    assert ATTACKS[8] in text


@pytest.mark.parametrize("name", ["evaluation", "comparison", "noise", "assessment", "data quality"])
def test_even_markup_that_got_into_a_page_runs_nothing_and_asks_nobody(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """What the policy in the page is for: here the texts are put into it as markup, as a mistake would."""
    broken = tmp_path / "page.html"
    text = pages[name].read_text(encoding="utf-8")
    broken.write_text(text.replace("</body>", f"{' '.join(ATTACKS[:9])}</body>"), encoding="utf-8")
    asked, title, _ = opened(browser, broken)
    assert asked == []
    assert title != "caught"


def test_without_a_policy_the_attacks_work(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><title>x</title><body>{' '.join(ATTACKS[:9])}</body>", encoding="utf-8")
    asked, title, _ = opened(browser, page)
    assert title == "caught"
    assert any(url.startswith(EVIL) for url in asked)


def test_the_scripts_of_our_pages_run(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["evaluation"].as_uri())
    assert page.locator("#shown").text_content() == "12 of 12"
    page.close()
