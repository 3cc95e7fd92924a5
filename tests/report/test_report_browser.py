"""Does the page work in a real browser: nothing fetched, nothing broken, readable, and the right value under each
point?

Chromium is driven by Playwright. Without Chromium these tests skip; where FAULTSIM_REQUIRE_CHROMIUM=1 they fail.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from faultsim.cli import main

WORDS = ("variant", "fault_kind", "placement", "curve")  # columns of summary.csv without numbers
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
CONTRAST = """
(minimum) => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts(text).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const seen = [];
  for (const element of document.querySelectorAll("body *")) {
    const drawn = element.closest(".drawing, .legend svg");
    const mark = drawn && ["use", "path"].includes(element.tagName) && element.closest(".point, .legend");
    const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!(mark || said) || !element.getClientRects().length || element.closest("defs, script, style, .skip")) continue;
    const style = getComputedStyle(element);
    const fill = style.fill === "none" ? style.stroke : style.fill;
    const [a, b] = [light(drawn ? fill : style.color), light(behind(element))].sort((x, y) => x - y);
    const ratio = (b + 0.05) / (a + 0.05);
    if (element.classList.contains("hollow")) continue;
    seen.push([ratio, mark ? 3 : 4.5, element.tagName, element.textContent.trim().slice(0, 30)]);
  }
  return seen;
}
"""


@pytest.fixture(scope="module")
def html(sweep, reproduced, tmp_path_factory) -> Path:
    """A page on the sweep and the reproduction."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(sweep), str(reproduced), "--out", str(file)])
    assert not ended.value.code
    return file


@pytest.fixture
def visit(browser) -> Callable:
    """visit(file, ...) -> the page in a browser without a network. After the test: nothing was fetched but the file
    itself, and nothing was complained about."""
    complaints: list[str] = []
    contexts = []

    def opened(file: Path, viewport: dict = DESK, **settings):
        context = browser.new_context(viewport=viewport, offline=True, **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: complaints.append("dialog") or dialog.dismiss())
        wanted = file.as_uri()
        tab.on(
            "request", lambda request: request.url == wanted or complaints.append(f"request: {request.url}")
        )
        tab.goto(wanted)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def summary(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-\d.]+", text.replace("\N{MINUS SIGN}", "-"))]


# ------------------------------------------------------------------------------------------------- it is all there


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_every_figure_is_visible_once_and_nothing_sticks_out(visit, html, viewport):
    tab = visit(html, viewport)
    figures = tab.locator("figure.chart")
    assert figures.count() == 3 + 2 + 3  # the sweep's, one for each fault model, three trainings
    for index in range(figures.count()):
        shown = figures.nth(index).locator(".drawing").filter(visible=True)
        assert shown.count() == 1
        box = shown.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 60
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= viewport["width"]
    assert tab.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    # letters of the drawings are large enough to read where they are drawn small
    sizes = tab.evaluate(
        "[...document.querySelectorAll('.drawing text')].filter((e) => e.getClientRects().length)"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))"
    )
    assert min(sizes) >= 7.5


def test_wide_tables_scroll_inside_themselves_and_by_keyboard(visit, html):
    tab = visit(html, PHONE)
    table = tab.locator(".scroll").first
    assert table.evaluate("(e) => e.scrollWidth > e.clientWidth")
    table.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("(e) => e.scrollLeft > 0", arg=table.element_handle())


def test_headings_tables_and_names_for_those_who_do_not_see(visit, html):
    tab = visit(html)
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.locator("table thead th:not([scope=col])").count() == 0
    assert tab.locator("table tbody th:not([scope])").count() == 0
    unnamed = (
        "[...document.querySelectorAll('figure, table, svg:not([aria-hidden]), [role=region], .point, img')]"
    )
    unnamed += ".filter((e) => !(e.ariaLabel || e.alt || document.getElementById(e.getAttribute('aria-labelledby'))))"
    assert tab.evaluate(f"{unnamed}.length") == 0


# ------------------------------------------------------------------------------------------------ values of points


def test_the_value_under_the_pointer_is_that_of_the_csv(visit, html, sweep):
    tab = visit(html)
    drawing = tab.locator("figure.chart").first.locator(".drawing").filter(visible=True)
    rows = [
        row
        for variant in ("unprotected", "with ConvS")
        for row in summary(sweep)
        if row["variant"] == variant
    ]
    points = drawing.locator(".point")
    assert points.count() == len(rows) == 8
    tip = tab.locator("#tip")
    assert not tip.is_visible()
    drawing.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
    tab.wait_for_timeout(200)  # values vanish when the page scrolls
    for index, row in enumerate(rows):
        points.nth(index).hover(force=True)
        # where points lie on each other all of them are told
        blocks = [block.split("\n") for block in tip.locator("> div").all_inner_texts()]
        heading = f"{row['variant']}, voltage {float(row['voltage']):.4g}"
        assert heading in [block[0] for block in blocks]
        lines = next(block for block in blocks if block[0] == heading)
        said = {line.split(":")[0]: numbers(line.split(":")[1]) for line in lines[1:]}
        value = {name: 100 * float(text) for name, text in row.items() if name not in WORDS}
        assert said["accuracy"] == pytest.approx([value["mean"], value["std"]], abs=0.00501)
        assert said["95 % interval"] == pytest.approx([value["ci95_low"], value["ci95_high"]], abs=0.00501)
        assert said["worst to best chip"] == pytest.approx([value["worst"], value["best"]], abs=0.00501)
        assert said["energy saving"] == pytest.approx([value["energy_saving"]], abs=0.0501)
        at = tip.bounding_box()
        assert at["x"] >= 0
        assert at["x"] + at["width"] <= DESK["width"]
    tab.mouse.move(5, 5)
    assert not tip.is_visible()


def test_a_finger_near_a_point_is_enough(visit, html):
    tab = visit(html, PHONE, has_touch=True)
    point = tab.locator("figure.chart .drawing").filter(visible=True).first.locator(".point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    tab.touchscreen.tap(box["x"] + box["width"] / 2 + 9, box["y"] + box["height"] / 2 - 9)
    tip = tab.locator("#tip")
    assert "voltage 0.95\nbit error rate: " in tip.inner_text()
    at = tip.bounding_box()
    assert at["x"] >= 0
    assert at["x"] + at["width"] <= PHONE["width"]


def test_points_are_reached_by_keyboard(visit, html, sweep):
    tab = visit(html)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the results"
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.classList.contains('point')"):
            break
    focused = "document.activeElement.getAttribute('aria-label').split('\\n')[0]"
    tip = tab.locator("#tip")
    for key, heading in (
        (None, "unprotected, voltage 0.95"),
        ("ArrowRight", "unprotected, voltage 0.86"),
        ("ArrowDown", "with ConvS, voltage 0.86"),
        ("End", "with ConvS, voltage 0.8"),
        ("ArrowRight", "with ConvS, voltage 0.8"),
        ("ArrowUp", "unprotected, voltage 0.8"),
        ("Home", "unprotected, voltage 0.95"),
    ):
        if key:
            tab.keyboard.press(key)
        assert tab.evaluate(focused) == heading
        assert tip.inner_text().split("\n")[0] == heading
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    before = tab.evaluate("document.activeElement.closest('figure').getAttribute('aria-labelledby')")
    tab.keyboard.press("Tab")  # one stop for each drawing
    assert tab.evaluate("document.activeElement.closest('figure')?.getAttribute('aria-labelledby')") != before


def test_without_a_script_the_values_are_still_there(visit, html, sweep):
    tab = visit(html, java_script_enabled=False)
    titles = tab.locator("figure.chart").first.locator(".drawing").first.locator(".point title")
    assert titles.count() == len(summary(sweep))
    assert titles.first.text_content().startswith("unprotected, voltage 0.95\nbit error rate: ")
    assert tab.locator("table").first.is_visible()


# ----------------------------------------------------------------------------------------------------- two schemes


def test_both_schemes_are_readable_and_differ(visit, html):
    backgrounds = []
    for scheme in ("light", "dark"):
        tab = visit(html, color_scheme=scheme)
        seen = tab.evaluate(CONTRAST)
        assert len(seen) > 150
        assert {tag for _, _, tag, _ in seen} >= {"H1", "H2", "TD", "TH", "LI", "P", "text", "use", "path"}
        assert [found for found in seen if found[0] < found[1]] == []
        backgrounds.append(
            tab.evaluate(
                "['body', 'section'].map((e) => getComputedStyle(document.querySelector(e)).backgroundColor)"
            )
        )
        ink = "getComputedStyle(document.querySelector('.point use')).fill"
        backgrounds[-1].append(tab.evaluate(ink))
    assert all(light != dark for light, dark in zip(*backgrounds, strict=True))


def test_on_paper_it_is_black_on_white_and_values_are_unfolded(visit, html):
    tab = visit(html, color_scheme="dark")
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.locator("nav").is_visible()
    assert tab.locator("figure.chart .drawing").filter(visible=True).count() == 8
    assert tab.pdf().startswith(b"%PDF")


# --------------------------------------------------------------------------------------------------- hostile files


def test_hostile_files_are_text(visit, sweep, reproduced, tmp_path):
    folder = Path(shutil.copytree(sweep, tmp_path / "<img src=x onerror=alert(1)>"))
    script = "<script>document.title = 'hacked'; alert(1)</script><img src='http://localhost:9/x' onerror=alert(1)>"
    information = json.loads((folder / "sweep.json").read_text())
    information |= {"device": script, "commit": script, "date": script}
    information["configuration"] |= {"model": script, "dataset": script, "generator": {"name": script}}
    (folder / "sweep.json").write_text(json.dumps(information))
    for name in ("summary.csv", "results.csv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("with ConvS", script))
    result = json.loads(next(reproduced.glob("result-*.json")).read_text())
    result["cell"] |= {"dataset": script, "base": f"$\\frac{script}", "faults": script}
    (folder / "result-x.json").write_text(json.dumps(result))
    entry = {"epoch": 1, "loss": 1, "clean": 1, "perturbed": 1}
    (folder / "onload=alert(1) x.log.jsonl").write_text(json.dumps(entry))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder), "--out", str(tmp_path / "page.html")])
    assert not ended.value.code
    tab = visit(tmp_path / "page.html")
    assert "faultsim report" in tab.title()
    assert tab.locator("script").count() == 1
    assert tab.locator("img").count() == 0
    assert tab.locator("h2").filter(has_text="document.title").count() == 1
    point = tab.locator("figure.chart", has_text="Accuracy against supply").locator(".drawing .point").nth(7)
    point.focus()
    assert tab.locator("#tip").inner_text().startswith(script)


def test_no_script_but_the_pages_own_would_run(html, browser, tmp_path):
    """Even if markup came through: the policy stops it."""
    text = html.read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(
        text.replace("<h1>", "<script>document.title = 'hacked'</script><h1>")
    )
    context = browser.new_context(offline=True)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.goto((tmp_path / "page.html").as_uri())
    assert "hacked" not in tab.title()
    assert any("Content Security Policy" in text for text in complaints)
    context.close()
