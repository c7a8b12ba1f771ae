"""Submissions: what is exported verifies, every change of it is named with its file, and boards compare what can be."""

from __future__ import annotations

import gzip
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.cli import main
from bench.errors import BenchError
from bench.execute.build import build
from bench.experiment import ablation as ablations
from bench.experiment.graph import report_stages, stages
from bench.experiment.key import digest
from bench.experiment.scale import MICRO
from bench.scoring import schema
from bench.setup.request import Request
from bench.setup.rows import plan_request
from bench.statistics import share_interval, verdicts
from bench.store.store import Store
from bench.tables import results
from bench.tables.record import describe_run, gather_row
from bench.tables.submission import folder as files
from bench.tables.submission.board import BEHIND, BEST, TIE, make_boards, write_board
from bench.tables.submission.export import export
from bench.tables.submission.verify import verify

ABLATION = '''"""What can be had without a large training."""
from bench.systems import linear, trivial
variants = [trivial.Spec("random", "random"), trivial.Spec("VAE", "vae"), linear.Spec("linear")]
'''
NO_STORE = Path("nowhere")  # the items are drawn again


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The request of results at scale micro: three rows and the null of `linear`, as `bench run --nulls each` records
    them, without the baselines of a table."""
    folder = tmp_path_factory.mktemp("submission")
    (folder / "plain.py").write_text(ABLATION)
    request = Request(str(folder / "plain.py"), scale="micro", nulls="each", device="cpu", store=folder / "store",
                      results=folder / "results")
    planned, store = plan_request(request), Store(request.store)
    rows = [row for row in planned.rows if not row.beside or row.variant == "linear / EEG shuffled"]
    for stage in stages(stage for row in rows for stage in report_stages(row)):
        build(stage, store)
    ablation = ablations.load(request.ablation)
    gathered = [gather_row(row, store, MICRO, ablation) for row in rows]
    results.record(request.results_folder, "plain", pd.concat([numbers for numbers, _ in gathered]),
                   pd.concat([items for _, items in gathered]))
    results.note_runs(request.results_folder, "plain", [describe_run(row, store) for row in rows])
    return request


@pytest.fixture(scope="module")
def exported(recorded, tmp_path_factory):
    """The folders of three submissions."""
    out = tmp_path_factory.mktemp("exported")
    return {name: export(recorded, name, out / name) for name in ("random", "VAE", "linear")}


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of `linear`, to be changed."""
    return shutil.copytree(exported["linear"], tmp_path / "linear")


def read_rows(folder):
    return pd.read_csv(folder / files.RESULTS, dtype=str, keep_default_na=False)


def write_rows(folder, rows):
    (folder / files.RESULTS).write_bytes(schema.to_csv(rows))


def read_items(folder):
    data = gzip.decompress((folder / files.ITEMS).read_bytes())
    return pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)


def write_items(folder, items):
    (folder / files.ITEMS).write_bytes(schema.gzipped(schema.to_csv(items)))


def rehash(folder):
    """Makes SHA256SUMS agree with the files, as somebody does who hides a change."""
    names = [path.name for path in folder.iterdir() if path.name != files.SUMS]
    (folder / files.SUMS).write_bytes(files.sums_of({name: (folder / name).read_bytes() for name in names}))


def problems_of(folder):
    return verify(folder, NO_STORE).problems


def change_number(folder):
    rows = read_rows(folder)
    rows.loc[(rows["variant"] == "linear") & (rows["metric"] == "top1_label"), "value"] = "0.9"
    write_rows(folder, rows)


def change_judge(folder):
    rows = read_rows(folder)
    write_rows(folder, rows.assign(judge="tiny/judge@0123456789ab"))


def change_items_and_number(folder):
    items = read_items(folder)
    write_items(folder, items.assign(top1_label="1"))
    rows = read_rows(folder)
    rows.loc[rows["metric"] == "top1_label", "value"] = "1"
    write_rows(folder, rows)


def remove_items(folder):
    items = read_items(folder)
    kept = sorted(set(items["item"]), key=int)[3:]
    write_items(folder, items[items["item"].isin(kept)])


def remove_items_of_all_metrics(folder):
    """Leaves out the items that were wrong, and computes every number again."""
    items = read_items(folder)
    items = items[items["item"].map(items.groupby("item")["top1_label"].max()) == "1"]
    write_items(folder, items)
    rows, numbers = read_rows(folder), results.parse_items(gzip.decompress((folder / files.ITEMS).read_bytes()))
    means = numbers.groupby(["variant", "items"])[[c for c in numbers if c in set(rows["metric"])]].mean()
    n = numbers.groupby(["variant", "items"])["item"].nunique()
    for (variant, kind), values in means.iterrows():
        for metric, value in values.dropna().items():
            chosen = (rows["variant"] == variant) & (rows["items"] == kind) & (rows["metric"] == metric)
            rows.loc[chosen, ["value", "n"]] = [f"{value:.10g}", str(n[variant, kind])]
    write_rows(folder, rows)


def repeat_item(folder):
    items = read_items(folder)
    write_items(folder, pd.concat([items, items.iloc[:2]]))


def change_label(folder):
    items = read_items(folder)
    items.loc[items["item"] == items["item"].iloc[0], "label"] = "9"
    write_items(folder, items)


def empty_a_cell(folder):
    items = read_items(folder)
    items.loc[items.index[0], "top1_label"] = ""
    write_items(folder, items)
    change_number(folder)


def remove_column(folder):
    write_items(folder, read_items(folder).drop(columns="top1_label"))
    change_number(folder)


def change_world(folder):
    write_rows(folder, read_rows(folder).assign(world="tiny, seed 0"))


def change_about(folder):
    about = json.loads((folder / files.ABOUT).read_text())
    (folder / files.ABOUT).write_bytes(files.json_bytes(about | {"seeds": [0, 1, 2]}))


def empty_the_document(folder):
    listed, rows = json.loads((folder / files.KEYS).read_text()), read_rows(folder)
    document = {"kind": "Score", "version": listed["keys"][0]["document"]["version"]}
    key = files.hash_text(files.canonical_json(document))
    (folder / files.KEYS).write_bytes(files.json_bytes({"keys": [
        each | {"document": document, "key": key} for each in listed["keys"]]}))
    write_rows(folder, rows.assign(stage=key[:16]))


def edit_spec(folder):
    spec = json.loads((folder / files.SPEC).read_text())
    (folder / files.SPEC).write_text(files.canonical_json(spec | {"strength": 0.123}) + "\n")


def edit_key(folder):
    listed = json.loads((folder / files.KEYS).read_text())
    listed["keys"][0]["document"]["nway"] = 2
    (folder / files.KEYS).write_bytes(files.json_bytes(listed))


def edit_version(folder):
    """Another version of the scoring, with a key and a column that agree with it."""
    listed, rows = json.loads((folder / files.KEYS).read_text()), read_rows(folder)
    for each in listed["keys"]:
        each["document"]["version"] = 1
        key = files.hash_text(files.canonical_json(each["document"]))
        rows.loc[rows["stage"] == each["key"][:16], "stage"] = key[:16]
        each["key"] = key
    (folder / files.KEYS).write_bytes(files.json_bytes(listed))
    write_rows(folder, rows)


CHANGES = [
    (change_number, "results.csv: linear, seed 0: top1_label is 0.9, but the items give 0."),
    (change_judge, "results.csv: linear, seed 0: judge is tiny/judge@0123456789ab, but the signed stage has "),
    (change_items_and_number, "items.csv.gz: linear, seed 0: item "),
    (remove_items, "items.csv.gz: linear, seed 0: lacks 3 of 40 items of the protocol: "),
    (remove_items_of_all_metrics, "items.csv.gz: linear, seed 0: lacks "),
    (repeat_item, "items.csv.gz: linear, seed 0: item "),
    (change_label, "the protocol has "),
    (empty_a_cell, "items.csv.gz: linear, seed 0: lacks values of top1_label, which results.csv has"),
    (remove_column, "items.csv.gz: linear, seed 0: lacks values of top1_label, which results.csv has"),
    (change_world, "results.csv: linear, seed 0: world is tiny, seed 0, but the signed stage has tiny, seed 1"),
    (change_about, "submission.json: seeds is [0, 1, 2], results.csv has 0"),
    (empty_the_document, "keys.json: linear, seed 0: the signed stage has no items.trials.world.kind"),
    (edit_spec, "spec.json: has the digest "),
    (edit_key, "keys.json: linear, seed 0, real: its document has the key "),
    (edit_version, "keys.json: linear, seed 0: was scored by version 1 of Score, this version of bench has "),
]


def test_an_export_has_the_results_the_items_the_spec_and_the_keys_and_verifies(recorded, exported):
    folder = exported["linear"]
    assert {path.name for path in folder.iterdir()} == {*files.FILES[files.RECORDED], files.SUMS}
    subprocess.run(["sha256sum", "--check", "--quiet", files.SUMS], cwd=folder, check=True)
    checked = verify(folder, NO_STORE)
    assert checked.problems == ()
    known = results.read(recorded.results_folder, "plain")
    mine = known.rows["variant"].isin(["linear", "linear / EEG shuffled"])
    pd.testing.assert_frame_equal(checked.submission.rows, known.rows[mine].reset_index(drop=True))
    assert len(checked.submission.items) == known.items["variant"].isin(["linear", "linear / EEG shuffled"]).sum()
    spec = ablations.load(recorded.ablation).select(["linear"])[0]
    assert files.hash_text((folder / files.SPEC).read_text().strip())[:12] == digest(spec)
    assert {key.key[:16] for key in checked.submission.keys} == set(known.rows[mine]["stage"])
    environment = json.loads((folder / files.ENVIRONMENT).read_text())
    assert len(environment["runs"]) == 2
    assert environment["stages"][checked.submission.keys[0].key[:16]]["packages"]["torch"]
    assert "host" not in (folder / files.ENVIRONMENT).read_text()


def test_metrics_of_the_whole_set_are_named_as_not_checked(exported):
    (note,) = verify(exported["VAE"]).notes
    assert note.startswith("fid_torchmetrics, ")
    assert "top1_label" not in note


@pytest.mark.parametrize(("change", "line"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_change_with_consistent_hashes_is_named_with_its_file(copied, change, line):
    change(copied)
    rehash(copied)
    found = problems_of(copied)
    assert any(line in problem for problem in found), found
    assert all(len(problem.splitlines()) == 1 for problem in found)


@pytest.mark.parametrize(("change", "name"), [(change_number, files.RESULTS), (remove_items, files.ITEMS),
                                              (edit_spec, files.SPEC), (edit_key, files.KEYS)])
def test_a_change_without_new_hashes_names_the_file_that_was_changed(copied, change, name):
    change(copied)
    assert any(problem.startswith(f"{name}: was changed: its SHA-256 is ") for problem in problems_of(copied))


@pytest.mark.parametrize("name", [*files.FILES[files.RECORDED], files.SUMS])
def test_a_missing_file_is_named_once(copied, name):
    (copied / name).unlink()
    found = problems_of(copied)
    assert [problem for problem in found if problem.startswith(f"{name}: is missing")] == list(found[:1])


def test_a_file_that_does_not_belong_to_it_is_named(copied):
    (copied / "extra.txt").write_text("extra")
    assert problems_of(copied) == ("extra.txt: is not listed in SHA256SUMS",)


def test_a_line_of_the_hashes_that_was_edited_is_named(copied):
    text = (copied / files.SUMS).read_text()
    (copied / files.SUMS).write_text(text.replace(text[:64], "0" * 64, 1))
    (problem,) = problems_of(copied)
    assert problem.endswith(f"{files.SUMS} says 000000000000...")


@pytest.mark.parametrize("name", files.FILES[files.RECORDED][:-1])
def test_a_file_of_something_else_is_one_line_and_no_traceback(copied, name, capsys):
    (copied / name).write_bytes(b"<html>not found</html>")
    rehash(copied)
    assert main(["verify", str(copied)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith(f"{copied}: {name}: ") or line.startswith(f"{copied}: {name} is ") for line in lines)


def test_verify_prints_what_it_verified_and_returns_1_for_a_fault(exported, copied, capsys):
    assert main(["verify", str(exported["VAE"]), str(copied)]) == 0
    assert f"{exported['VAE']}: VAE, seeds 0, 40 items: verified" in capsys.readouterr().out
    change_number(copied)
    assert main(["verify", str(exported["VAE"]), str(copied)]) == 1
    assert f"{copied}: results.csv: was changed" in capsys.readouterr().err
    assert main(["verify", str(copied / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "line"), [
    (["--variant", "nobody"], "no variant 'nobody' in plain; there are: random, VAE, linear"),
    (["--variant", "linear", "--out", "{out}"], "exists and is not an empty folder"),
])
def test_an_export_that_cannot_be_made_is_refused_in_one_line(recorded, exported, options, line, capsys):
    given = [option.format(out=exported["linear"]) for option in options]
    assert main(["export", recorded.ablation, "--scale", "micro", "--results", str(recorded.results), "--store",
                 str(recorded.store), *given]) == 2
    error = capsys.readouterr().err.strip()
    assert line in error
    assert len(error.splitlines()) == 1


def test_results_of_other_stages_or_settings_are_not_exported(recorded, tmp_path):
    known = results.read(recorded.results_folder, "plain")
    rows = known.rows.assign(params=known.rows["params"].astype(object).where(known.rows["params"].notna(), ""))
    for columns, line in (({"stage": "0123456789abcdef"}, "was recorded by stage 0123456789abcdef, but this version"),
                          ({"spec": "0123456789ab"}, "was recorded with other settings")):
        folder = tmp_path / next(iter(columns))
        results.record(folder / "micro", "plain", rows.assign(**columns), known.items)
        with pytest.raises(BenchError, match=line):
            export(replace(recorded, results=folder), "VAE", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_board_ranks_with_the_suites_intervals_and_verdicts_on_paired_items(exported):
    submissions = [verify(folder).submission for folder in exported.values()]
    (board,) = make_boards(submissions)
    assert board.places[0].submission.name == "VAE"
    values = {each.name: each.items[each.items["items"] == "real"].groupby("picture")["top1_label"].mean().to_numpy()[
        None] for each in submissions}
    expected = verdicts({name: (values["VAE"], values[name]) for name in ("random", "linear")})
    for place in board.places:
        assert place.score == share_interval(values[place.submission.name])
        if place.submission.name != "VAE":
            assert place.behind == expected[place.submission.name]
            assert place.word == {"better": BEHIND, "not resolved": TIE}[place.behind.word]
    assert board.places[0].word == BEST
    assert {place.submission.name: place.null is not None for place in board.places} == {
        "VAE": False, "random": False, "linear": True}


def test_three_submissions_are_one_board_and_a_tie_is_called_so(exported, copied, tmp_path, capsys):
    about = json.loads((copied / files.ABOUT).read_text())
    (copied / files.ABOUT).write_bytes(files.json_bytes(about | {"name": "linear again"}))
    rehash(copied)
    folders = [str(exported[name]) for name in ("random", "linear")]
    assert main(["leaderboard", *folders, str(copied), "--out", str(tmp_path / "board")]) == 0
    table = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert set(table["board"]) == {1}
    assert set(table["submission"]) == {"random", "linear", "linear again"}
    twins = table.set_index("submission").loc[["linear", "linear again"]]
    assert twins["score"].nunique() == 1
    assert TIE in set(twins["verdict"])
    text = (tmp_path / "board" / "index.html").read_text()
    words = " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())
    assert TIE in words
    assert "Results at scale micro check the software" in words
    assert "http" not in re.sub(r'http-equiv|xmlns="[^"]*"', "", text)


def test_a_board_is_the_same_file_whatever_the_order_of_its_submissions(exported, tmp_path):
    folders = list(exported.values())
    first, second = (write_board(order, tmp_path / str(number))[1].read_bytes()
                     for number, order in enumerate((folders, folders[::-1])))
    assert first == second


def test_other_protocols_are_other_boards_and_the_page_says_in_what_they_differ(exported, copied, tmp_path):
    """Other versions of the networks' packages: MUST_AGREE separates them."""
    rows = read_rows(copied)
    write_rows(copied, rows.assign(versions="torch 1.0.0"))
    rehash(copied)
    write_board([*exported.values(), copied], tmp_path / "board")
    table = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert sorted(table.groupby("board")["submission"].apply(len)) == [1, 3]
    text = (tmp_path / "board" / "index.html").read_text()
    apart = text[text.index('id="apart"'):text.index('id="provenance"')]
    assert re.findall(r'<th scope="row">([^<]*)', apart) == ["versions"]
    assert "torch 1.0.0" in apart


def test_a_submission_that_does_not_verify_is_refused_and_no_board_is_made_without_it(exported, copied, tmp_path,
                                                                                     capsys):
    change_number(copied)
    rehash(copied)
    assert main(["leaderboard", str(exported["VAE"]), str(copied), "--out", str(tmp_path / "board")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"bench: {copied} does not verify: results.csv: linear, seed 0: top1_label is 0.9")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "board").exists()


def test_two_submissions_of_one_name_in_a_table_are_refused(exported):
    twice = [verify(exported["VAE"]).submission] * 2
    with pytest.raises(BenchError, match="two submissions of one protocol are called 'VAE'"):
        make_boards(twice)
