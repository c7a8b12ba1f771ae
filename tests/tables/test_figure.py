"""Figures hold what is in the store, nothing else, and say what it is. The stages here are made up, not run."""

import subprocess
import sys
from argparse import Namespace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper import PAPER
from PIL import Image
from rich.console import Console
from timm.data import ImageNetInfo

from bench.commands.figure import main
from bench.data.pictures import CLASSES
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.scale import MICRO
from bench.experiment.stages import Score
from bench.scoring import schema
from bench.setup import rows as rows_
from bench.store.store import Store
from bench.tables import sheet
from bench.tables.figure import choose_classes, worst_of_each
from bench.train.trials import write_classes

SHOWN, PER_CLASS, SAMPLES = 10, 4, 2
N = SHOWN * PER_CLASS
TWO = """
from ablations.table2 import full, row3
from bench.systems import captions
variants = [row3, full, captions.Spec("no condition", "none")]
"""
ONE_WORLD_AND_ANOTHER = """
from ablations.table2 import full
from bench.variant import On
variants = [full, On(full, "in blocks", world={"order": "blocked", "blocks": 60})]
"""


def scored(seed: int, judge: int = 0) -> pd.DataFrame:
    """Every second class is always taken for the next one by sample 1, worst in the class's last item."""
    rows = [{"item": item, "sample": sample, "label": item % SHOWN, "judged": (item + sample * (item % 2)) % SHOWN,
             "nway_label": 1 - 0.01 * item if sample else 1.0, "judge_distance": 0.5}
            for item in range(N) for sample in range(SAMPLES)]
    frame = pd.DataFrame(rows)
    return frame.assign(label=frame["label"] + judge, judged=frame["judged"] + judge)


def fill(store: Store, table, but=(), judge: int = 0) -> None:
    """Puts trials, pictures and scores of the rows into the store, every picture another one. judge: what its numbers
    of the classes are above the data set's."""
    rng = np.random.default_rng(0)

    def trials(out):
        write_classes(out)
        classes = pd.read_csv(out / "classes.csv")
        classes.assign(judge=classes["judge"] + judge).to_csv(out / "classes.csv", index=False)
        item = np.arange(N)
        np.save(out / "pictures.npy", rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8))
        np.save(out / "eeg.npy", np.zeros((N, 2, 8), np.float32))
        pd.DataFrame({"item": item, "subject": 4, "picture": item, "label": item % SHOWN, "part": "test", "block": 0,
                      "position": item}).to_csv(out / "trials.csv", index=False)

    def pictures(out):
        np.save(out / "pictures.npy", rng.integers(0, 256, (N, SAMPLES, 32, 32, 3), dtype=np.uint8))
        np.save(out / "item.npy", np.arange(N))

    for row in table:
        if isinstance(row.stage, Score) and row.variant not in but:
            store.build(row.stage.items.trials, trials)
            store.build(row.stage.pictures, pictures)
            store.build(row.stage, lambda out, seed=row.seed: (out / "items.csv.gz").write_bytes(
                schema.gzipped(schema.csv_bytes(scored(seed, judge)))))


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with a store in which all rows of two.py stand, seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("figures")
    (folder / "two.py").write_text(TWO)
    fill(Store(folder / "store"), table(folder))
    return folder


def table(folder: Path, seeds=(0, 1), name="two"):
    return rows_.rows(ablation.load(str(folder / f"{name}.py")).variants, MICRO, seeds)


def draw(folder: Path, number: int, seeds="0", out="figure.png", name="two", store="store") -> np.ndarray:
    options = Namespace(figure=number, ablation=str(folder / f"{name}.py"), scale="micro", weights=None,
                        data=None, store=str(folder / store),
                        seeds=seeds, out=str(folder / out), device="cpu")
    assert main(options, Console()) == 0
    return np.asarray(Image.open(folder / out))


def holds(page: np.ndarray, picture: np.ndarray) -> bool:
    """Whether the picture stands on the page, enlarged twice."""
    corner, large = picture[0, 0], np.repeat(np.repeat(picture, 2, 0), 2, 1)
    for top, left in np.argwhere((page == corner).all(-1)):
        if np.array_equal(page[top : top + 64, left : left + 64], large):
            return True
    return False


def of(folder: Path, variant: str, items="real", seed=0):
    """The stimuli and the pictures of a row."""
    store = Store(folder / "store", create=False)
    row = next(r for r in table(folder) if (r.variant, r.items, r.seed) == (variant, items, seed))
    return (np.load(store.path(row.stage.items.trials) / "pictures.npy"),
            np.load(store.path(row.stage.pictures) / "pictures.npy"))


def test_figure_3_shows_the_first_three_items_of_each_class_with_every_sample_of_full_alone(there):
    page = draw(there, 3)
    stimuli, full = of(there, "Full")
    for item in (0, 9, 10, 25, 29):
        assert holds(page, stimuli[item])
        assert all(holds(page, full[item, sample]) for sample in range(SAMPLES))
    assert not holds(page, full[30, 0])
    assert not holds(page, of(there, "3")[1][0, 0])
    assert not holds(page, of(there, "Full", seed=1)[1][0, 0])
    assert holds(draw(there, 3, "0,1"), of(there, "Full", seed=1)[1][0, 0])


def test_figure_4_shows_three_classes_with_other_systems_above_null_and_ceiling_below(there):
    page = draw(there, 4)
    stimuli, full = of(there, "Full")
    for item in (0, 1, 2, 30, 31, 32):
        assert holds(page, stimuli[item])
        assert holds(page, full[item, 1])
    assert not holds(page, stimuli[3])
    assert holds(page, of(there, "no condition")[1][2, 0])
    assert holds(page, of(there, "Full", "shuffled")[1][2, 0])
    assert holds(page, of(there, "class name as text", "captions")[1][2, 0])
    assert not holds(page, of(there, "3")[1][2, 0])


def test_figure_4_shows_the_papers_classes_where_the_data_set_has_them():
    names = [ImageNetInfo().index_to_description(number).split(",")[0] for number in PAPER.fixed]
    shown = np.arange(40).repeat(2)
    classes, as_paper = choose_classes(names, shown)
    assert [names[label] for label in classes] == ["airliner", "jack-o'-lantern", "giant panda"]
    assert as_paper
    assert choose_classes(names, shown[shown != classes[1]]) == ([0, 1, 2], False)  # one of them has no test item
    assert choose_classes(("disc", "square", "star", "ring"), np.array([3, 1, 1, 2])) == ([1, 2, 3], False)


def test_figure_5_shows_every_row_for_the_first_item_of_each_class(there):
    page = draw(there, 5)
    for variant, items in (("Full", "real"), ("3", "real"), ("no condition", "real"), ("Full", "shuffled")):
        pictures = of(there, variant, items)[1]
        assert holds(page, pictures[0, 0])
        assert holds(page, pictures[9, 1])
        assert not holds(page, pictures[10, 0])


def test_figure_5_puts_rows_on_other_trials_into_a_block_of_their_own(there, tmp_path):
    (tmp_path / "two_worlds.py").write_text(ONE_WORLD_AND_ANOTHER)
    rows = table(tmp_path, (0,), "two_worlds")
    fill(Store(tmp_path / "store"), rows)
    page = draw(tmp_path, 5, name="two_worlds")
    assert rows[0].stage.items.trials != rows[1].stage.items.trials
    for row in rows[:2]:
        folder = Store(tmp_path / "store").path(row.stage.items.trials)
        assert holds(page, np.load(folder / "pictures.npy")[0])
        assert holds(page, np.load(Store(tmp_path / "store").path(row.stage.pictures) / "pictures.npy")[0, 1])


def test_figure_6_shows_the_worst_wrong_picture_of_each_class_and_none_where_all_is_right(there):
    page = draw(there, 6)
    stimuli, full = of(there, "Full")
    for label in range(1, SHOWN, 2):
        worst = label + 30
        assert holds(page, stimuli[worst])
        assert holds(page, full[worst, 1])
        assert not holds(page, full[label, 1])
    for label in range(0, SHOWN, 2):
        assert not any(holds(page, stimuli[item]) for item in range(label, N, SHOWN))


def test_figure_6_names_classes_by_the_judges_numbers_which_need_not_be_the_data_sets(there, tmp_path, monkeypatch):
    (tmp_path / "two.py").write_text(TWO)
    fill(Store(tmp_path / "store"), table(tmp_path, (0,)), judge=900)
    drawn = []
    matrix = sheet.matrix
    monkeypatch.setattr(sheet, "matrix", lambda *given: drawn.append(given) or matrix(*given))
    page = draw(tmp_path, 6)
    draw(there, 6)
    assert drawn[0][1:] == drawn[1][1:] == ([*CLASSES[:SHOWN]], [*CLASSES[:SHOWN]])
    assert np.array_equal(drawn[0][0], drawn[1][0])
    assert np.trace(drawn[0][0]) == pytest.approx(SHOWN * 0.75)
    store = Store(tmp_path / "store")
    stage = next(row for row in table(tmp_path, (0,)) if row.variant == "Full" and row.items == "real").stage
    assert holds(page, np.load(store.path(stage.pictures) / "pictures.npy")[31, 1])


def test_figure_6_puts_classes_that_are_seldom_judged_into_one_column(there, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.tables.figure.OTHERS", 0)
    (tmp_path / "two.py").write_text(TWO)
    rare = scored(0).assign(judged=lambda frame: frame["judged"].where(frame["label"] > 0, 500))
    monkeypatch.setattr(sys.modules[__name__], "scored", lambda seed, judge: rare)
    fill(Store(tmp_path / "store"), table(tmp_path, (0,)))
    drawn = []
    matrix = sheet.matrix
    monkeypatch.setattr(sheet, "matrix", lambda *given: drawn.append(given) or matrix(*given))
    draw(tmp_path, 6)
    shares, _, columns = drawn[0]
    assert columns == [*CLASSES[:SHOWN], "another"]
    assert shares[0].tolist() == [0] * SHOWN + [1]


def test_the_worst_of_a_class_has_the_lowest_accuracy_then_the_greatest_distance_then_comes_first():
    rows = pd.DataFrame(
        [(7, 0, 0, 1, 0.2, 0.1), (6, 1, 0, 2, 0.2, 0.3), (6, 0, 0, 2, 0.2, 0.3), (9, 0, 0, 3, 0.3, 0.9),
         (1, 0, 0, 0, 0.0, 9.9), (2, 0, 1, 1, 0.1, 0.1), (3, 0, 2, 0, 0.9, 0.1)],
        columns=["item", "sample", "label", "judged", "nway_label", "judge_distance"])
    worst = worst_of_each(rows)
    assert list(zip(worst["item"], worst["sample"], strict=True)) == [(6, 0), (3, 0)]


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_equal_pictures_are_equal_files(there, number):
    draw(there, number, out="a.png")
    draw(there, number, out="b.png")
    assert (there / "a.png").read_bytes() == (there / "b.png").read_bytes()


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_every_figure_says_scale_seed_variant_judge_and_that_it_is_no_paper_number(there, monkeypatch, number):
    said = []
    monkeypatch.setattr(sheet, "stacked", lambda title, blocks, caption: said.extend([title, *caption]) or blocks[0])
    draw(there, number, "1")
    text = " ".join(said)
    assert text.startswith(f"Figure {number}. ")
    judge = MICRO.weights("judge")
    for part in ("Scale micro.", "Seed 1.", "Full", f"Judge {judge.name}@{judge.sha256[:12]}.",
                 "Numerics cpu, float32, 1 thread", "nothing here can be compared with the paper's figure",
                 f"DreamDiffusion's Fig. {number}"):
        assert part in text
    if number == 4:
        assert ", ".join(CLASSES[:3]) in text
        assert "Brain2Image is not a row of the ablation two and is not drawn" in text
    if number == 5:
        assert "3: no pre-training." in text


def test_what_is_not_in_the_store_is_named_with_the_command_that_makes_it(there, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    fill(Store(tmp_path / "store"), table(tmp_path, (0,)), but=("3",))
    draw(tmp_path, 3)
    with pytest.raises(BenchError, match=r"figure 5: not in the store .*: 3 \(seed 0\); make it with: bench run "
                                         r"--ablation .*two\.py --scale micro --seeds 0 --store ") as error:
        draw(tmp_path, 5, out="no.png")
    assert "\n" not in str(error.value)
    with pytest.raises(BenchError, match=r"Full \(seed 2\); make it with: .* --seeds 0,2"):
        draw(tmp_path, 6, "0,2", out="no.png")
    assert not (tmp_path / "no.png").exists()
    with pytest.raises(BenchError, match="not in the store"):
        draw(tmp_path, 3, store="nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_figure_is_a_png(there):
    with pytest.raises(BenchError, match=r"--out .*figure\.pdf: a file name that ends in \.png"):
        draw(there, 3, out="figure.pdf")


def test_pictures_larger_than_the_page_allows_are_reduced_and_a_long_caption_is_wrapped():
    large = np.zeros((2, 1, 512, 256, 3), np.uint8)
    block = sheet.block({"Full": large}, ["panda", "airliner"], 128)
    assert block.height == 2 * sheet.TEXT + 128 + sheet.GAP
    page = sheet.stacked("title", [block], ["word " * 200])
    assert page.width == max(40 * sheet.TEXT, block.width) + 2 * sheet.WIDE
    ink = np.asarray(page.convert("L")) < 128
    assert not ink[:, -sheet.WIDE :].any()
    assert ink[block.height + 60 :].any(1).sum() > 40


def test_a_matrix_is_darkest_where_the_share_is_largest():
    shown = np.asarray(sheet.matrix(np.array([[1, 0], [0.25, 0.75]]), ["circle", "square"], ["circle", "square"]))
    for line, cells in enumerate(([73], [209, 119])):  # 255 + share * (the full shade's mean - 255); white is 255
        row = shown[2 * sheet.TEXT + line * sheet.CELL + 2].mean(1)
        seen = [round(shade) for before, shade in pairwise(row) if shade != before]
        assert [shade for shade in seen if shade != 255] == cells


def test_drawing_imports_no_torch():
    code = "import sys, bench.tables.figure; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
