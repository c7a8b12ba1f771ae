"""Results on disk: rows are merged and never lost, and changes by hand are detected."""

import errno
import gzip
import hashlib
import multiprocessing
import os
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.scoring import schema
from bench.tables import results

ABOUT = {"scale": "tiny", "world": "0", "config": "c", "spec": "v",
         "judge": "judge@abc", "numerics": "cpu float32 1 thread",
         "pretrain_seeds": "each", "params": 1234, "paper_params": "297M",
         "leaky": "no", "versions": "torch 2", "failed": ""}
NO_NETWORK = {"extractor": "", "extractor_sha256": "", "comparable": 1}


def rows(variant="5", seed=0, items="real", value=0.5, stage="s1", fid=""):
    return pd.DataFrame([
        {"variant": variant, "seed": seed, "items": items, "metric": "top1_label", "key": "16 classes", "value": value,
         "n": 2, **ABOUT, **NO_NETWORK, "stage": stage},
        {"variant": variant, "seed": seed, "items": items, "metric": "fid", "key": fid, "value": 100 / 3, "n": 2,
         **ABOUT, **NO_NETWORK, "stage": stage}])


def item_rows(variant="5", seed=0, items="real", value=0.5, samples=2):
    return pd.DataFrame([
        {"variant": variant, "seed": seed, "items": items, "item": item, "sample": sample, "picture": item,
         "top1_label": value} for item in (10, 9) for sample in range(samples)])


def record(folder, samples=2, stage="s1", fid="N=2, reference=10", **what):
    results.record(folder, "mine", rows(stage=stage, fid=fid, **what), item_rows(samples=samples, **what))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_recording_one_variant_keeps_every_other_row(tmp_path):
    for seed in (0, 1):
        for variant in ("Full", "5"):
            record(tmp_path, variant=variant, seed=seed)
    record(tmp_path, variant="5", seed=1, value=0.75)
    recorded = results.read(tmp_path, "mine")
    top1 = recorded.rows[recorded.rows.metric == "top1_label"].set_index(["variant", "seed"])["value"].to_dict()
    assert top1 == {("5", 0): 0.5, ("5", 1): 0.75, ("Full", 0): 0.5, ("Full", 1): 0.5}
    assert len(recorded.rows) == 8
    assert recorded.items.groupby(["variant", "seed"])["top1_label"].mean()["5", 1] == 0.75
    assert len(recorded.items) == 16


def test_recording_the_same_rows_twice_leaves_every_byte(tmp_path):
    record(tmp_path)
    record(tmp_path, variant="Full", value=1 / 3)
    before = contents(tmp_path)
    record(tmp_path)
    assert contents(tmp_path) == before


def test_the_order_of_recording_does_not_matter(tmp_path):
    for folder, order in (("a", "12"), ("b", "21")):
        for variant in order:
            record(tmp_path / folder, variant=variant)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_row_named_5_is_read_as_text_and_numbers_have_a_fixed_format(tmp_path):
    record(tmp_path)
    recorded = results.read(tmp_path, "mine")
    assert recorded.rows["variant"].tolist() == ["5", "5"]
    assert recorded.items["variant"].tolist() == ["5"] * 4
    assert recorded.items["item"].tolist() == [9, 9, 10, 10]
    text = (tmp_path / "mine.csv").read_bytes()
    assert b",33.33333333," in text
    assert b"\r" not in text
    assert text.splitlines()[0].decode() == ",".join(schema.COLUMNS)


def test_another_stage_replaces_what_it_makes_stale_and_nothing_else(tmp_path):
    record(tmp_path, stage="s1", fid="N=2, averaged over 2 samples")
    extra = rows(stage="other").iloc[:1].assign(metric="readout_accuracy", items="readout")
    gone = rows(stage="s1").iloc[:1].assign(metric="masked_mse")
    results.record(tmp_path, "mine", gone, pd.DataFrame())
    results.record(tmp_path, "mine", extra, pd.DataFrame())
    record(tmp_path, stage="s2", fid="N=2, averaged over 1 sample", samples=1)
    recorded = results.read(tmp_path, "mine")
    assert sorted(zip(recorded.rows.metric, recorded.rows.key, recorded.rows.stage, strict=True)) == [
        ("fid", "N=2, averaged over 1 sample", "s2"), ("readout_accuracy", "16 classes", "other"),
        ("top1_label", "16 classes", "s2")]
    assert len(recorded.items) == 2


def test_controls_stand_beside_their_variant(tmp_path):
    record(tmp_path, variant="Full")
    record(tmp_path, variant="Full", items="shuffled", value=0.1)
    assert results.read(tmp_path, "mine").rows.groupby("items").size().to_dict() == {"real": 2, "shuffled": 2}


def test_hashes_are_what_sha256sum_checks(tmp_path):
    record(tmp_path)
    subprocess.run(["sha256sum", "--check", "--strict", "mine.sha256"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["mine.csv", "mine.items.csv.gz"])
def test_a_file_changed_by_hand_is_refused_and_left_alone(tmp_path, name):
    record(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data.replace(b",0.5,", b",0.9,") if name == "mine.csv" else data[:-1])
    before = contents(tmp_path)
    for attempt in (lambda: record(tmp_path, variant="Full"), lambda: results.read(tmp_path, "mine")):
        with pytest.raises(BenchError, match=f"{name} was changed since bench wrote it .* delete it together") as error:
            attempt()
        assert error.value.exit_code == 2
    assert contents(tmp_path) == before


def test_a_csv_without_its_hashes_is_refused(tmp_path):
    record(tmp_path)
    (tmp_path / "mine.sha256").unlink()
    with pytest.raises(BenchError, match=r"mine\.csv was changed"):
        record(tmp_path)


def test_deleting_what_the_error_names_starts_afresh(tmp_path):
    record(tmp_path, variant="Full")
    (tmp_path / "mine.csv").write_text("mine now\n")
    for name in ("mine.csv", "mine.items.csv.gz", "mine.sha256"):
        (tmp_path / name).unlink()
    record(tmp_path)
    assert set(results.read(tmp_path, "mine").rows["variant"]) == {"5"}


class PowerCut(BaseException):
    """Nothing runs after it."""


def test_cut_short_at_any_moment_both_files_are_old_or_both_are_new(tmp_path, monkeypatch):
    for folder in ("old", "new"):
        record(tmp_path / folder, value=0.25)
    old = results.read(tmp_path / "old", "mine")
    record(tmp_path / "new", value=0.75)
    new = results.read(tmp_path / "new", "mine")
    seen = []
    for moment in range(100):
        folder, left = tmp_path / f"cut{moment}", [moment]
        shutil.copytree(tmp_path / "old", folder)

        def step(real, left=left):
            def counted(*arguments, **options):
                if left[0] == 0:
                    raise PowerCut
                left[0] -= 1
                return real(*arguments, **options)
            return counted

        with monkeypatch.context() as patched:
            patched.setattr(results.os, "fsync", step(os.fsync))
            patched.setattr(results.Path, "replace", step(results.Path.replace))
            patched.setattr(results.Path, "open", step(results.Path.open))
            try:
                record(folder, value=0.75)
                done = True
            except PowerCut:
                done = False
        found = results.read(folder, "mine")
        matches = [found.rows.equals(state.rows) and found.items.equals(state.items) for state in (old, new)]
        assert sum(matches) == 1, f"neither old nor new after step {moment}"
        seen.append(matches.index(True))
        record(folder, value=0.75)
        assert contents(folder)["mine.csv"] == contents(tmp_path / "new")["mine.csv"]
        if done:
            break
    assert done
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


def test_a_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch):
    record(tmp_path, value=0.25)
    before = contents(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(results.os, "fsync", full)
        with pytest.raises(BenchError, match="disk is full") as error:
            record(tmp_path, value=0.75)
    assert error.value.exit_code == 75
    assert contents(tmp_path) == before
    record(tmp_path, value=0.75)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_environment(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot write to") as error:
        record(tmp_path / "file" / "tiny")
    assert error.value.exit_code == 3


def test_asking_for_what_was_never_run_says_what_there_is(tmp_path):
    record(tmp_path)
    with pytest.raises(BenchError, match=r"no results of 'clip' .* there are: mine; .*bench run --ablation clip"):
        results.read(tmp_path, "clip")


def test_a_number_that_is_nan_is_never_recorded(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        record(tmp_path, value=np.nan)


def test_what_changes_from_run_to_run_is_kept_apart(tmp_path):
    record(tmp_path)
    before = contents(tmp_path)
    results.note_runs(tmp_path, "mine", [{"variant": "5", "seed": 0, "seconds": 1.5, "host": "here"}])
    results.note_runs(tmp_path, "mine", [{"variant": "5", "seed": 0, "seconds": 2}])
    after = contents(tmp_path)
    runs = after.pop("mine.runs.csv").decode().splitlines()
    assert runs == [",".join(results.RUNS), ",5,0,,,1.5,,,here,,,,,", ",5,0,,,2,,,,,,,,"]
    assert after == {name: data for name, data in before.items() if name != "mine.runs.csv"}
    record(tmp_path)
    assert contents(tmp_path)["mine.runs.csv"].decode().splitlines() == runs


def test_notes_of_an_older_version_get_the_columns_of_this_one(tmp_path):
    old = "date,variant,seed,items,stage,seconds,host,commit\nd,5,0,real,abc,1.5,here,123\n"
    (tmp_path / "mine.runs.csv").write_text(old)
    results.note_runs(tmp_path, "mine", [{"variant": "6", "seed": 1, "training_s": 3.5}])
    assert (tmp_path / "mine.runs.csv").read_text().splitlines() == [
        ",".join(results.RUNS), "d,5,0,real,abc,1.5,,,here,123,,,,", ",6,1,,,,3.5,,,,,,,"]
    assert list(results.runs(tmp_path, "mine")["training_s"]) == ["", "3.5"]
    assert results.runs(tmp_path, "other").empty


def _record_many(folder, seed):
    for variant in "abcde":
        record(folder, variant=variant, seed=seed)


def test_processes_that_record_at_the_same_time_lose_no_row(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_record_many, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(results.read(tmp_path, "mine").rows) == 3 * 5 * 2


def test_gathering_a_stages_folder_says_whose_numbers_they_are(tmp_path):
    scored = pd.DataFrame([("ssim", "", 1 / 3, 2, "", "", 1)], columns=list(schema.METRICS))
    (tmp_path / "metrics.csv").write_bytes(schema.csv_bytes(scored))
    (tmp_path / "items.csv.gz").write_bytes(schema.gzipped(b"item,sample,ssim\n1,0,0.25\n"))
    about = {**ABOUT, "variant": "5", "seed": 2, "items": "real", "stage": "s"}
    del about["failed"]
    found, items = results.gather(tmp_path, **about)
    assert list(items.columns) == ["variant", "seed", "items", "item", "sample", "ssim"]
    results.record(tmp_path / "out", "mine", found, items)
    assert results.read(tmp_path / "out", "mine").rows.iloc[0].to_dict() == {
        **about, **NO_NETWORK, "schema": 2, "ablation": "mine", "metric": "ssim", "key": "", "value": 0.3333333333,
        "n": 2, "failed": ""}
    with pytest.raises(ValueError, match="expected variant"):
        results.gather(tmp_path, variant="5")


def test_gzip_bytes_hold_no_time(monkeypatch):
    first = schema.gzipped(b"a,b\n")
    monkeypatch.setattr(results.gzip.time, "time", lambda: 1e9)
    assert schema.gzipped(b"a,b\n") == first
    assert gzip.decompress(first) == b"a,b\n"


FAILURE = {name: value for name, value in ABOUT.items() if name != "failed"}


def fail(folder, variant="5", seed=0, items="real", stage="s2", reason="out of memory"):
    row = results.failure(reason, variant=variant, seed=seed, items=items, stage=stage, **FAILURE)
    results.record(folder, "mine", row, pd.DataFrame())


def test_a_variant_that_failed_keeps_an_empty_row_with_the_reason(tmp_path):
    record(tmp_path, variant="Full")
    fail(tmp_path, reason="OutOfMemory:\n  8 GiB")
    row, = results.read(tmp_path, "mine").rows.query("variant == '5'").to_dict("records")
    assert (row["metric"], row["n"], row["failed"]) == ("failed", 0, "OutOfMemory: 8 GiB")
    assert np.isnan(row["value"])
    assert b",failed,,,0,,,0,tiny," in (tmp_path / "mine.csv").read_bytes()
    assert len(results.read(tmp_path, "mine").items) == 4


def test_a_failure_takes_the_place_of_older_numbers_and_numbers_that_of_a_failure(tmp_path):
    record(tmp_path)
    record(tmp_path, seed=1)
    fail(tmp_path, stage="s2")
    recorded = results.read(tmp_path, "mine")
    assert recorded.rows.groupby("seed")["metric"].agg(list).to_dict() == {0: ["failed"], 1: ["fid", "top1_label"]}
    assert set(recorded.items["seed"]) == {1}
    record(tmp_path, stage="s2")
    assert results.read(tmp_path, "mine").rows["metric"].tolist() == ["fid", "top1_label"] * 2
    assert len(results.read(tmp_path, "mine").items) == 8


def test_a_failure_to_build_again_what_is_recorded_changes_nothing(tmp_path):
    record(tmp_path, stage="s2")
    before = contents(tmp_path)
    fail(tmp_path, stage="s2")
    assert contents(tmp_path) == before


def test_the_last_failure_of_a_row_is_the_one_that_stands(tmp_path):
    fail(tmp_path, stage="s1", reason="first")
    fail(tmp_path, stage="s2", reason="second")
    fail(tmp_path, stage="s2", reason="third")
    assert results.read(tmp_path, "mine").rows["failed"].tolist() == ["third"]
    assert results.read(tmp_path, "mine").items.empty


@pytest.mark.parametrize("wrong", [{"value": ""}, {"failed": "why"}, {"metric": "failed"},
                                   {"metric": "failed", "value": "", "failed": ""}])
def test_a_row_without_a_number_that_does_not_say_why_is_never_recorded(tmp_path, wrong):
    with pytest.raises(ValueError, match="needs either a number or the reason of its failure"):
        results.record(tmp_path, "mine", rows().iloc[:1].assign(**wrong), pd.DataFrame())
    both = pd.concat([rows(), results.failure("x", variant="5", seed=0, items="real", stage="s1", **FAILURE)])
    with pytest.raises(ValueError, match="both numbers and a failure"):
        results.record(tmp_path, "mine", both, pd.DataFrame())


def schema_1(folder):
    """Results as the first schema had them: two rows, without the columns that came later."""
    record(folder)
    text = pd.read_csv(folder / "mine.csv", dtype=str, keep_default_na=False)
    text = text.drop(columns=["schema", "extractor", "extractor_sha256", "comparable", "leaky", "versions", "failed"])
    (folder / "mine.csv").write_bytes(text.to_csv(index=False, lineterminator="\n").encode())
    rehash(folder)
    return folder


def rehash(folder):
    names = ("mine.csv", "mine.items.csv.gz")
    (folder / "mine.sha256").write_text("".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names))


def test_schema_1_is_read_as_this_schema(tmp_path):
    rows = results.read(schema_1(tmp_path / "old"), "mine").rows.set_index("metric")
    assert ("metric", *rows) == ("metric", *(name for name in schema.COLUMNS if name != "metric"))
    assert set(rows["schema"]) == {2}
    added = ["extractor", "extractor_sha256", "comparable"]
    assert rows.loc["fid", added].tolist() == rows.loc["top1_label", added].tolist() == ["judge", "abc", 0]
    assert set(rows["leaky"]) == set(rows["versions"]) == set(rows["failed"]) == {""}


def test_a_number_of_schema_1_that_no_network_made_has_no_extractor(tmp_path):
    path = schema_1(tmp_path / "old") / "mine.csv"
    path.write_text(path.read_text().replace(",fid,", ",psnr,"))
    row = results.read_csv(path).set_index("metric").loc["psnr"]
    assert (row["extractor"], row["extractor_sha256"], row["comparable"]) == ("", "", 1)


def test_recording_into_a_file_of_schema_1_makes_it_one_of_this_schema_and_keeps_its_numbers(tmp_path):
    folder = schema_1(tmp_path / "old")
    before = results.read(folder, "mine")
    results.record(folder, "mine", rows(variant="new"), item_rows(variant="new").assign(ssim=0.5))
    after = results.read(folder, "mine")
    assert (folder / "mine.csv").read_text().splitlines()[0] == ",".join(schema.COLUMNS)
    pd.testing.assert_frame_equal(after.rows[after.rows["variant"] == "5"].reset_index(drop=True), before.rows)
    old_items = after.items[after.items["variant"] == "5"].reset_index(drop=True)
    pd.testing.assert_frame_equal(old_items[list(before.items)], before.items)
    assert old_items["ssim"].isna().all()
    subprocess.run(["sha256sum", "--check", "--strict", "mine.sha256"], cwd=folder, check=True, capture_output=True)


def test_items_of_one_row_may_have_metrics_that_another_lacks(tmp_path):
    both = pd.concat([item_rows(), item_rows(variant="Full").assign(retrieval_top1=1.0)])
    results.record(tmp_path, "mine", pd.concat([rows(), rows(variant="Full")]), both)
    items = results.read(tmp_path, "mine").items
    assert items.groupby("variant")["retrieval_top1"].count().to_dict() == {"5": 0, "Full": 4}
    with pytest.raises(ValueError, match="NaN"):
        results.record(tmp_path, "mine", rows(), item_rows().assign(ssim=[1, np.nan, 1, 1]))
    record(tmp_path, variant="Full", stage="s2")
    assert "retrieval_top1" not in results.read(tmp_path, "mine").items


def test_a_file_of_a_schema_that_is_not_known_is_refused(tmp_path):
    record(tmp_path)
    (tmp_path / "mine.csv").write_text((tmp_path / "mine.csv").read_text().replace("\n2,", "\n3,"))
    rehash(tmp_path)
    with pytest.raises(BenchError, match=r"mine\.csv has schema 3, expected schema 2"):
        results.read(tmp_path, "mine")
    with pytest.raises(BenchError, match="schema 3"):
        record(tmp_path)


def test_a_csv_that_lies_anywhere_is_read_without_its_hash(tmp_path):
    record(tmp_path)
    shutil.copy(tmp_path / "mine.csv", tmp_path / "sent.csv")
    pd.testing.assert_frame_equal(results.read_csv(tmp_path / "sent.csv"), results.read(tmp_path, "mine").rows)
    text = (tmp_path / "sent.csv").read_text()
    (tmp_path / "sent.csv").write_text(text.replace(",0.5,", ",inf,"))  # the PSNR of equal pictures
    assert np.isinf(results.read_csv(tmp_path / "sent.csv")["value"]).any()


@pytest.mark.parametrize(("change", "line"), [
    (lambda text: text.replace(",0.5,", ",half,"), "line 3: value is 'half', expected a number"),
    (lambda text: text.replace(",0.5,", ",nan,"), "line 3: value is 'nan', expected a number"),
    (lambda text: text.replace("metric", "measure"), "has other columns, expected schema 2"),
    (lambda text: text.replace(",0.5,", ",0.5,7,"), "is not a CSV"),
    (lambda text: "", "has other columns"),
])
def test_a_csv_that_is_none_of_ours_is_refused_in_one_line(tmp_path, change, line):
    record(tmp_path)
    (tmp_path / "sent.csv").write_text(change((tmp_path / "mine.csv").read_text()))
    with pytest.raises(BenchError, match=r"sent\.csv.*" + line):
        results.read_csv(tmp_path / "sent.csv")
    with pytest.raises(BenchError, match="no file"):
        results.read_csv(tmp_path / "missing.csv")


def test_numbers_that_say_nothing_of_a_failure_did_not_fail(tmp_path):
    record(tmp_path / "a")
    results.record(tmp_path / "b", "mine", pd.concat([rows(fid="N=2, reference=10").iloc[:1], rows(
        fid="N=2, reference=10").iloc[1:].drop(columns="failed")]), item_rows())
    assert contents(tmp_path / "a")["mine.csv"] == contents(tmp_path / "b")["mine.csv"]


@pytest.mark.parametrize("name", ["null", "NA", "None", "nan", "n/a", "5"])
def test_a_variant_whose_name_looks_like_a_missing_value_keeps_its_name(tmp_path, name):
    record(tmp_path, variant=name)
    recorded = results.read(tmp_path, "mine")
    assert set(recorded.rows["variant"]) == set(recorded.items["variant"]) == {name}
    assert recorded.items["top1_label"].dtype == recorded.rows["value"].dtype == np.float64


@pytest.mark.parametrize(("change", "line"), [
    (lambda text: text.replace(",1234,", ",12c4,"), "line 2: params is '12c4', expected an integer"),
    (lambda text: text.replace(",0.5,2,", ",0.5,2.0,"), r"line 3: n is '2.0', expected an integer"),
    (lambda text: text.replace(",0.5,2,", f",0.5,{2**63},"), f"line 3: n is '{2**63}', expected an integer"),
    (lambda text: '""\n', "other columns"),
    (lambda text: "\n,\n", "other columns")])
def test_a_csv_with_a_damaged_number_names_its_line(tmp_path, change, line):
    record(tmp_path)
    (tmp_path / "sent.csv").write_text(change((tmp_path / "mine.csv").read_text()))
    with pytest.raises(BenchError, match=r"sent\.csv.*" + line) as caught:
        results.read_csv(tmp_path / "sent.csv")
    assert "\n" not in str(caught.value)


def test_hashes_that_are_not_text_are_hashes_of_other_files(tmp_path):
    record(tmp_path)
    file = tmp_path / "mine.sha256"
    file.write_bytes(b"\xe9" + file.read_bytes()[1:])
    with pytest.raises(BenchError, match=r"mine\.csv was changed"):
        results.read(tmp_path, "mine")


@pytest.mark.parametrize(("text", "line"), [
    (b"\xff\xfe\x00", "is not a CSV"), (b"<html>404</html>\n", "has a column '<html>404</html>'"),
    (b"date,seconds\n2026,3.5\n2026,3x5\n", "line 3: seconds is '3x5', expected a number")])
def test_damaged_times_of_runs_are_named_and_never_overwritten(tmp_path, text, line):
    record(tmp_path)
    file = tmp_path / "mine.runs.csv"
    file.write_bytes(text)
    for use in (lambda: results.runs(tmp_path, "mine"), lambda: results.note_runs(tmp_path, "mine", [{"seconds": 1}])):
        with pytest.raises(BenchError, match=rf"mine\.runs\.csv.*{line}.*it holds times, no results"):
            use()
    assert file.read_bytes() == text


def test_an_empty_file_of_runs_which_a_kill_leaves_gets_its_columns(tmp_path):
    record(tmp_path)
    (tmp_path / "mine.runs.csv").write_bytes(b"")
    assert results.runs(tmp_path, "mine").empty
    results.note_runs(tmp_path, "mine", [{"seconds": 1.5}])
    assert results.runs(tmp_path, "mine")["seconds"].tolist() == ["1.5"]
