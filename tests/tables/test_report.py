"""Reports: one file that answers a stranger's questions, with the recorded numbers and the stored images, and that
works in a browser without a network."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import bench
from bench.cli import main
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.scale import MICRO
from bench.experiment.stages import Score
from bench.setup import rows as rows_
from bench.setup.request import Request
from bench.store.store import Store
from bench.tables import build, plots, results
from bench.tables.report import answers, charts, page, pictures
from bench.tables.scores import Scores

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
TWO = '''"""Full beside a row without EEG."""
from bench import FULL
from bench.systems import captions
variants = [FULL, captions.Spec("no condition", "none")]
contrasts = [("Full", "no condition")]
'''


@pytest.fixture(scope="module")
def recorded(micro, tmp_path_factory):
    """A folder with results and a store of a run at scale micro, and its request."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "two.py").write_text(TWO)
    shutil.copytree(micro.root, folder / "store")
    bench.run(str(folder / "two.py"), scale="micro", store=folder / "store", results=folder / "results", device="cpu",
              workers=1)
    return Request(str(folder / "two.py"), scale="micro", store=folder / "store", results=folder / "results",
                   device="cpu")


@pytest.fixture(scope="module")
def written(recorded, tmp_path_factory):
    """A folder with the report of that run, those of two references without a store, and their index."""
    out = tmp_path_factory.mktemp("written")
    page.write(out, [recorded])
    nowhere = Request(reference=True, store=out / "nowhere", results=ROOT / "results")
    page.write(out, [replace(nowhere, ablation=name) for name in ("table2", "systems")])
    return out


@pytest.fixture(scope="module")
def table2():
    chosen = ablation.load("table2")
    return chosen, build.table(REFERENCE / "tiny", "table2", chosen), Scores(results.read(REFERENCE / "tiny", "table2"))


def words(path: Path) -> str:
    """The text of a page without its script and style."""
    text = re.sub(r"<(script|style)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())


def test_the_component_that_matters_most_has_the_largest_resolved_differences(table2):
    chosen, table, _ = table2
    answer = answers.largest(table, answers.decoding_rows(chosen))
    resolved = {c.pair: 100 * c.verdict.interval.mean for c in table.differences if answers.is_resolved(c)}
    sizes = [resolved[pair] for pair in (("3", "1"), ("Full", "13"), ("4", "2"))]
    assert answer.answer == (f"The change “no CLIP” mattered most: it lowers the score by {min(sizes):.1f} to "
                             f"{max(sizes):.1f} points (3 resolved differences).")
    assert len(answer.details) == len(resolved) > 3


def test_a_table_without_a_resolved_difference_names_no_component(table2):
    chosen, table, _ = table2
    left = tuple(c for c in table.differences if not answers.is_resolved(c))
    decoding = answers.decoding_rows(chosen)
    found = [answers.largest(replace(table, differences=rest), decoding).answer for rest in (left, ())]
    assert found[0].startswith(f"None can be named: none of {len(left)} tested differences")
    assert found[1].startswith("This table tests no difference")


def test_every_tested_difference_is_either_resolved_or_listed_as_not_resolved(table2):
    chosen, table, _ = table2
    decoding = answers.decoding_rows(chosen)
    details = (*answers.largest(table, decoding).details, *answers.unresolved(table, decoding).details)
    assert sorted(text.partition(":")[0] for text in details) == sorted(c.label for c in table.differences)


def test_controls_are_no_components():
    chosen = ablation.load("controls")
    table = build.table(REFERENCE / "tiny", "controls", chosen)
    decoding = answers.decoding_rows(chosen)
    assert "EEG shuffled" not in decoding
    assert "EEG shuffled" not in " ".join(answers.largest(table, decoding).details)


def test_chance_is_the_share_of_the_most_frequent_class(table2):
    _, table, scores = table2
    share = scores.of["Full", "real"].drop_duplicates("item")["label"].value_counts(normalize=True).max()
    assert answers.chance(table, scores, ("Full", "real")).answer.startswith(f"{100 * share:.1f} %")
    null = next(row.top1 for row in table.entries if "null" in row.name)
    assert f"{100 * null.mean:.1f} [" in answers.chance(table, scores, ("Full", "real")).details[0]


def test_the_eeg_is_used_only_if_the_gain_is_above_zero(table2):
    chosen, table, scores = table2
    keys = {v.name: (v.name, "real") for v in chosen.variants}

    def answer(low: float) -> str:
        rows = [replace(row, gain=replace(row.gain, low=low)) if row.gain else row for row in table.entries]
        return answers.uses_eeg(replace(table, entries=tuple(rows)), scores, "Full", keys, set(keys)).answer

    full, null = (next(100 * row.top1.mean for row in table.entries if row.name == name)
                  for name in ("Full", "Full, shuffled EEG (null)"))
    assert answer(0.1).startswith(f"Yes: row Full reaches {full:.1f} % with the EEG of the trial and {null:.1f} %")
    assert answer(-0.1).startswith("No gain was found")


def test_a_leak_is_named_where_the_eeg_is_judged():
    chosen = ablation.load("block_design")
    table, scores = (build.table(REFERENCE / "tiny", "block_design", chosen),
                     Scores(results.read(REFERENCE / "tiny", "block_design")))
    keys = {v.name: (v.name, "real") for v in chosen.variants}
    answer = answers.uses_eeg(table, scores, chosen.variants[0].name, keys, answers.decoding_rows(chosen))
    assert any(text.startswith("Leak in signal / blocked / by item: the block tells the class") for text in
               answer.details)


def test_the_report_says_what_is_left_out_without_a_store_and_holds_the_recorded_sheet(written):
    text = words(written / "table2.html")
    assert f"There is no store {written / 'nowhere'}. Left out: images of single items and their history" in text
    assert "The contact sheet is the recorded one." in text
    assert "Not drawn: the store holds no log of a training with a loss." in text
    sheet = pictures.data_uri((REFERENCE / "tiny" / "table2.png").read_bytes())
    assert sheet in (written / "table2.html").read_text()


def test_a_report_answers_a_stranger_and_names_its_origin(written, recorded):
    text = words(written / "two.html")
    for part in ("What is this?", "Which component mattered most?", "Which differences are not resolved?",
                 "What is chance?", "Was the EEG used at all?", "What did it cost?", "How to read", "of computing",
                 "they say nothing about brains", f"bench report {recorded.ablation} --scale micro", "Leak audit"):
        assert part in text
    rows = results.read(recorded.results_folder, "two").rows
    assert set(rows["stage"]) <= set(re.findall(r"\b[0-9a-f]{16}\b", text))


def test_a_report_is_one_small_file_that_names_no_address(written):
    for path in written.glob("*.html"):
        assert path.stat().st_size < page.LARGEST
        text = re.sub("data:image/[^\"]*", "data:", path.read_text())
        assert not re.findall(r"(?:https?:)?//[a-z]|@import|url\((?!#)", text)
        outside = {source for source in re.findall(r'\b(?:src|href)="([^"]*)', text) if source[:1] != "#"
                   and not source.startswith("data:")}
        assert outside == ({"table2.html", "systems.html"} if path.stem == "index" else set())


def test_equal_input_gives_equal_bytes(written, recorded):
    again = page.render(page.gather(recorded))
    assert again == (written / "two.html").read_bytes()


def test_the_images_and_the_judges_answers_are_the_stored_ones(written, recorded):
    store = Store(recorded.store, create=False)
    row = next(r for r in rows_.rows(ablation.load(recorded.ablation).variants, MICRO, [0])
               if (r.variant, r.items) == ("Full", "real") and isinstance(r.stage, Score))
    made = np.load(store.path(row.stage.pictures) / "pictures.npy")
    items = results.read(recorded.results_folder, "two").items
    items = items[(items["variant"] == "Full") & (items["items"] == "real")]
    number = sorted(items["item"].unique()).index(first := items.sort_values(["label", "item"])["item"].iloc[0])
    text = (written / "two.html").read_text()
    line = text[text.index('<tr><th scope="row">Full</th>'):]
    pattern = r'<img src="data:image/png;base64,([^"]*)"[^>]*class="(\w+)"[^>]*data-answer="judge: ([^ ]+) \((\w+)'
    tags = re.findall(pattern, line)[:2]
    shown = items[items["item"] == first].sort_values("sample")
    assert len(tags) == len(shown) == 2
    for sample, (data, mark, _, verdict) in enumerate(tags):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), made[number, sample])
        assert mark == verdict == ("right" if shown["judged"].iloc[sample] == shown["label"].iloc[sample] else "wrong")


def test_large_images_are_reduced_and_small_ones_kept_exactly():
    small, large = np.zeros((32, 32, 3), np.uint8), np.zeros((256, 512, 3), np.uint8)
    assert pictures.encode(small).startswith("data:image/png;")
    head, _, data = pictures.encode(large).partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 64)


def test_charts_follow_the_colours_of_the_page_and_share_no_id(written, table2):
    text = (written / "table2.html").read_text()
    inside = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not [colour for colour in charts.VARIABLES if colour in inside]
    assert "currentColor" in inside
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#(chart|forest|order|cost)-([^")]*)', inside))
    assert used
    assert {f"{name}-{rest}" for name, rest in used} <= set(ids)


def test_cost_is_read_from_the_runs_and_named_where_it_is_not_recorded(written):
    assert "Not recorded: these results hold no times" in words(written / "table2.html")
    assert "Forecast, not measured: about" in words(written / "table2.html")
    runs = pd.read_csv(REFERENCE / "tiny" / "systems.runs.csv")
    last = runs.groupby(["variant", "seed", "items"])[["training_s", "sampling_s"]].last()
    assert f"{np.nansum(last.to_numpy()) / 3600:.1f} hours of training and sampling" in words(written / "systems.html")


def test_what_cannot_be_reported_is_one_line(recorded, tmp_path, capsys):
    with pytest.raises(BenchError, match=r"--seeds 7: seed 7 is not recorded in .*; there are: 0$"):
        page.gather(recorded, [7])
    with pytest.raises(BenchError, match="two is named twice"):
        page.write(tmp_path / "out", [recorded, recorded])
    assert main(["report", "table2", "--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_it_wrote(tmp_path, capsys):
    assert main(["report", "mask_ratio", "--reference", "--results", str(ROOT / "results"),
                 "--store", str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'mask_ratio.html'}: 0.")
    assert "Score over the factors of this ablation" in words(tmp_path / "mask_ratio.html")


def test_a_chart_without_data_holds_its_reason(table2):
    made = charts.chart("training", "t", "a", lambda: charts.draw_training({}))
    assert (made.svg, made.reason) == ("", "the store holds no log of a training with a loss")
    assert charts.chart("forest", "t", "a", lambda: plots.draw_forest(table2[1])).svg.startswith("<svg ")


# In a browser


def test_a_history_names_the_judges_five_most_probable_classes_the_first_is_its_answer(written):
    text = html.unescape((written / "two.html").read_text())
    found = re.findall(r'data-answer="judge: ([^ ]+) \(\w+\)[^"]*most probable: ([^"]*)"', text)
    assert len(found) > 20
    for judged, ranked in found:
        parts = [re.fullmatch(r"(\w+) (\d+) %", each).groups() for each in ranked.split(", ")]
        names, shares = zip(*parts, strict=True)
        assert len(set(names)) == 5
        assert names[0] == judged
        assert sorted(map(int, shares), reverse=True) == list(map(int, shares))


def test_without_the_judges_weights_the_ranking_is_left_out_with_a_note(recorded, tmp_path, monkeypatch):
    def absent(weights, device):
        raise BenchError("no weights at /gone")

    monkeypatch.setattr(pictures, "load_judge", absent)
    page.write(tmp_path, [recorded])
    assert "The judge's other answers are left out: no weights at /gone." in words(tmp_path / "two.html")
    assert "most probable" not in (tmp_path / "two.html").read_text()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, written):
    """Opens a page; afterwards its log must be empty, and it must have requested nothing but its file."""
    contexts, log, asked = [], [], []

    def visit(name: str, width: int = 1400, **settings):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)

        def answer(route):
            asked.append(route.request.url)
            route.continue_()

        context.route("**/*", answer)
        opened = context.new_page()
        opened.set_default_timeout(10_000)
        opened.on("console", lambda message: log.append(message.text))
        opened.on("pageerror", lambda error: log.append(str(error)))
        opened.goto((written / f"{name}.html").as_uri())
        return opened

    yield visit
    for context in contexts:
        context.close()
    assert log == []
    assert {url for url in asked if not url.startswith((written.as_uri(), "data:"))} == set()


def cells(opened, column: int) -> list[str]:
    """The texts of a column of the table of rows, in the order on the page."""
    return opened.eval_on_selector_all("#grid-rows tbody tr:not([hidden])",
                                       f"rows => rows.map(row => row.cells[{column}].textContent)")


@pytest.mark.browser
def test_a_header_sorts_by_click_and_by_keyboard(visit):
    opened = visit("table2")
    head = opened.locator("#grid-rows thead th:not([hidden]) button", has_text="top-1")
    column, before = head.evaluate("button => button.parentElement.cellIndex"), cells(opened, 0)
    head.click()
    numbers = [float(text.split()[0]) for text in cells(opened, column)]
    assert numbers == sorted(numbers)
    assert head.locator("..").get_attribute("aria-sort") == "ascending"
    head.focus()
    opened.keyboard.press("Enter")
    numbers = [float(text.split()[0]) for text in cells(opened, column)]
    assert numbers == sorted(numbers, reverse=True)
    opened.keyboard.press("Enter")
    assert cells(opened, 0) == before
    outline = head.evaluate("button => getComputedStyle(button).outlineStyle")
    assert outline == "solid"


@pytest.mark.browser
def test_an_empty_cell_is_last_in_both_directions(visit):
    opened = visit("table2")
    head = opened.locator("#grid-rows thead th:not([hidden]) button", has_text="paper")
    column = head.evaluate("button => button.parentElement.cellIndex")
    for _ in range(2):
        head.click()
        assert cells(opened, column)[-1] == "-"


@pytest.mark.browser
def test_rows_are_filtered_and_columns_chosen(visit):
    opened = visit("table2")
    opened.locator("[data-tools=grid-rows] input[type=search]").fill("no CLIP")
    assert [name.partition(":")[0] for name in cells(opened, 0)] == ["1", "2", "13", "14"]
    assert "4 of 17 rows" in opened.locator("[data-tools=grid-rows] output").inner_text()
    head = opened.locator("#grid-rows thead th", has_text="encoder's label")
    assert not head.is_visible()
    opened.locator("[data-tools=grid-rows] summary").click()
    opened.locator("[data-tools=grid-rows]").get_by_label("encoder's label").check()
    assert head.is_visible()
    assert opened.locator("#grid-rows tbody tr:not([hidden]) td", has_text="18.3M").first.is_visible()


@pytest.mark.browser
def test_an_items_history_opens_by_click_and_by_keyboard(visit):
    opened = visit("two")
    box, heads = opened.locator("#lightbox"), opened.locator("#sheet-first thead button")
    opened.locator("#sheet-first tbody tr").nth(1).locator("td").nth(1).click()
    assert box.locator("h2").inner_text().endswith("(2 of 10)")
    assert box.locator(".history img").count() == 1 + opened.locator("#sheet-first tbody tr").count() * 2
    assert box.locator("figcaption").first.inner_text().startswith("judge: ")
    opened.keyboard.press("Escape")
    assert not box.is_visible()
    heads.nth(0).focus()
    opened.keyboard.press("Enter")
    assert box.locator("h2").inner_text().endswith("(1 of 10)")
    opened.keyboard.press("ArrowLeft")
    assert box.locator("h2").inner_text().endswith("(10 of 10)")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    assert box.locator("h2").inner_text().endswith("(2 of 10)")
    opened.keyboard.press("Escape")
    assert heads.nth(1).evaluate("button => button === document.activeElement")
    opened.locator("[data-sheet=sheet-first]").select_option("heart")
    assert heads.locator("visible=true").count() == 1


@pytest.mark.browser
def test_the_recorded_sheet_opens_in_full_size(visit):
    opened = visit("table2")
    opened.locator(".zoom").click()
    image = opened.locator("#lightbox img")
    assert image.evaluate("image => image.decode().then(() => image.width === image.naturalWidth)")
    opened.locator("[data-close]").click()
    assert not opened.locator("#lightbox").is_visible()


@pytest.mark.browser
def test_the_page_is_dark_by_the_systems_choice_and_by_its_button(visit):
    def shades(opened):
        colours = opened.evaluate("""() => [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('#chart-forest text')).fill]""")
        return [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]

    background, text = shades(visit("table2", color_scheme="light"))
    assert background > 200 > 100 > text
    opened = visit("table2", color_scheme="dark")
    background, text = shades(opened)
    assert background < 60 < 200 < text
    opened.locator("#theme").click()
    background, text = shades(opened)
    assert background > 200 > 100 > text


@pytest.mark.browser
@pytest.mark.parametrize("name", ["two", "table2", "systems", "index"])
def test_a_phone_does_not_scroll_sideways(visit, name):
    opened = visit(name, 390)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.browser
def test_every_image_of_a_report_can_be_shown(visit):
    opened = visit("two")
    broken = opened.evaluate("""async () => {
        const decode = (image) => { image.loading = 'eager'; return image.decode().then(() => 0, () => 1); };
        return (await Promise.all([...document.images].map(decode))).filter(Boolean).length; }""")
    assert opened.evaluate("document.images.length") > 20
    assert broken == 0


@pytest.mark.browser
def test_the_printed_page_has_no_controls(visit):
    opened = visit("two")
    opened.emulate_media(media="print")
    assert not opened.locator("header").is_visible()
    assert not opened.locator(".tools").first.is_visible()
    assert opened.locator(".answers article").count() == 5
