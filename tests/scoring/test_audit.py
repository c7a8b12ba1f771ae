"""Each planted leak is found, and none where none was planted."""

import hashlib
import os
import subprocess
import sys
from argparse import ArgumentParser

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.commands import audit as command_audit
from bench.data.prepared import PARTS
from bench.errors import BenchError
from bench.experiment.scale import MICRO
from bench.experiment.stages import Corpus
from bench.scoring import audit_predictions as module
from bench.scoring.audit import CLEAR, FACT, LEAK, UNKNOWN, audit, read
from bench.store.store import Store

CLASSES = 6


def trials(order="interleaved", split="item", n=432, subjects=(1,), seed=0, blocks=12, session=False):
    """Every subject sees all pictures once in an order of their own. Two thirds train, a sixth val, a sixth test."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % CLASSES
    part = np.empty(n, object)
    for one in range(CLASSES):
        part[rng.permutation(np.flatnonzero(label == one))] = np.repeat(PARTS, [n // 9, n // 36, n // 36])
    frames = []
    for subject in subjects:
        shown = rng.permutation(n)
        if order == "blocked":
            shown = shown[np.argsort(label[shown], kind="stable")].reshape(blocks, -1)[rng.permutation(blocks)].ravel()
        block = np.arange(n) * blocks // n
        held = np.repeat(PARTS, [blocks * 2 // 3, blocks // 6, blocks // 6])[rng.permutation(blocks)][block]
        frames.append(pd.DataFrame({
            "subject": subject, "picture": shown, "label": label[shown], "part": part[shown] if split == "item" else
            held, "block": block, "position": np.arange(n)}))
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "item", np.arange(len(table)))
    return table.assign(session=table["block"] * 3 // blocks) if session else table


def eeg(n=432, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 4, 64), dtype=np.float32)


def found(report, name):
    return next(finding for finding in report.findings if finding.name == name)


def leaks(report):
    return [finding.name for finding in report.findings if finding.severity == LEAK]


def first(table, part, than=0):
    return table.index[table["part"] == part][than]


@pytest.mark.parametrize("seed", range(5))
def test_an_interleaved_recording_split_by_picture_shares_blocks_but_is_no_leak(seed):
    table = trials(seed=seed).assign(exemplar=lambda t: t["picture"])
    report = audit(table, eeg(), np.arange(432 * 12, dtype=np.uint16).view(np.uint8).reshape(432, 2, 4, 3))
    assert report.verdict == "no"
    assert leaks(report) == []
    assert found(report, "block in train and test").severity == FACT
    assert found(report, "block in train and test").count == 72
    assert found(report, "neighbour in time is trained on").severity == FACT
    assert found(report, "class alone in its block").severity == CLEAR
    assert found(report, "subject in train and test").severity == FACT


def test_a_recording_in_class_blocks_split_by_picture_is_told_by_block_and_by_time():
    report = audit(trials("blocked"))
    assert report.verdict == "yes: the block tells the class (100 % against 16.7 %)"
    assert leaks(report) == ["the block tells the class", "the time tells the class"]
    alone = found(report, "class alone in its block")
    assert (alone.severity, alone.count) == (FACT, 72)


def test_two_people_whose_blocks_have_the_same_numbers_but_other_classes_are_kept_apart():
    assert audit(trials("blocked", subjects=(1, 2))).verdict == "yes: the block tells the class (100 % against 16.7 %)"


def test_a_test_trial_whose_block_was_not_trained_on_counts_as_a_guess():
    table = trials("blocked", "block", blocks=72)
    assert found(audit(table), "the block tells the class").count == 0
    table.loc[first(table, "train"), "part"] = "test"
    assert found(audit(table), "the block tells the class").count > 5


def test_what_is_certain_but_goes_only_a_little_way_is_no_leak(monkeypatch):
    table = trials("blocked")
    wrong = np.random.default_rng(0).choice(table.index, 200, replace=False)
    table.loc[wrong, "label"] = np.random.default_rng(1).permutation(table["label"][wrong])
    assert audit(table).leaky
    monkeypatch.setattr("bench.scoring.audit_predictions.GAIN", 0.9)
    assert not audit(table).leaky


def test_without_the_column_of_blocks_the_time_still_tells_the_class():
    report = audit(trials("blocked").assign(block=0))
    assert leaks(report) == ["the time tells the class"]
    assert report.verdict.startswith("yes: the time tells the class (9")
    assert found(report, "the block tells the class").example == "there is one block only"


@pytest.mark.parametrize("seed", [0, 1, 10, 16, 21])  # of the last three, a third of the blocks lie beside their like
def test_holding_whole_blocks_out_cures_it_though_some_lie_beside_their_like_by_chance(seed):
    report = audit(trials("blocked", "block", seed=seed, blocks=72))
    assert report.verdict == "no"
    assert found(report, "block in train and test").severity == CLEAR
    assert "shares its block" in found(report, "the block tells the class").example
    assert found(report, "the time tells the class").severity == CLEAR


def test_where_too_few_blocks_are_held_out_to_tell_the_report_says_so():
    assert found(audit(trials("blocked", "block")), "the time tells the class").severity == UNKNOWN


def test_a_person_held_out_is_told_by_time_only_where_all_saw_one_order():
    own = trials("blocked", subjects=(1, 2, 3))
    own["part"] = np.where(own["subject"] == 3, "test", "train")
    assert "time" not in " ".join(leaks(audit(own)))
    same = pd.concat([trials("blocked", seed=7).assign(subject=s, part="test" if s == 3 else "train")
                      for s in (1, 2, 3)], ignore_index=True).assign(item=np.arange(3 * 432), block=0)
    same["picture"] = same["item"]
    report = audit(same)
    assert leaks(report) == ["the time tells the class"]
    assert found(report, "subject in train and test").severity == CLEAR


def test_people_or_sessions_that_saw_classes_of_their_own_tell_the_class():
    table = trials(subjects=(1, 2), session=True)
    table = table[(table["label"] < 3) == (table["subject"] == 1)]
    report = audit(table)
    assert "the subject tells the class" in leaks(report)
    assert report.verdict.startswith("yes: the ")
    table = trials("blocked", session=True)
    assert found(audit(table), "the session tells the class").severity == LEAK
    assert found(audit(trials(session=True)), "the session tells the class").severity == CLEAR
    assert found(audit(trials(session=True)), "session in train and test").count == 72


def test_a_picture_in_two_parts_is_found():
    table = trials()
    table.loc[first(table, "test"), "picture"] = table["picture"][first(table, "train")]
    report = audit(table)
    assert leaks(report) == ["picture in two parts"]
    assert report.verdict == "yes: 1 picture in two parts"
    picture, item = table["picture"][first(table, "train")], table["item"][first(table, "test")]
    assert f"picture {picture}: " in found(report, "picture in two parts").example
    assert f"test item {item}" in found(report, "picture in two parts").example


def test_a_picture_that_stands_twice_in_one_part_is_no_leak():
    table = trials()
    table.loc[first(table, "train", 1), "picture"] = table["picture"][first(table, "train")]
    assert audit(table).verdict == "no"


def test_identical_bytes_under_two_ids_are_found_in_two_parts_and_not_in_one():
    table, pictures = trials(), np.random.default_rng(0).integers(0, 256, (432, 4, 4, 3), dtype=np.uint8)
    train, test, other = (table["picture"][row] for row in (
        first(table, "train"), first(table, "test"), first(table, "train", 1)))
    copied = pictures.copy()
    copied[other] = copied[train]
    assert audit(table, pictures=copied).verdict == "no"
    copied[test] = copied[train]
    report = audit(table, pictures=copied)
    assert leaks(report) == ["identical picture under two ids"]
    assert report.verdict == "yes: 1 identical picture under different ids in two parts"


def test_an_exemplar_in_two_parts_is_found():
    table = trials().assign(exemplar=lambda t: "photo " + t["picture"].astype(str))
    table.loc[first(table, "val"), "exemplar"] = table["exemplar"][first(table, "test")]
    report = audit(table)
    assert leaks(report) == ["exemplar in two parts"]
    assert found(audit(trials()), "exemplar in two parts").severity == UNKNOWN


def test_identical_eeg_is_found_in_two_parts_and_not_in_one():
    table, rows = trials(), eeg()
    rows[first(table, "train", 1)] = rows[first(table, "train")]
    assert audit(table, rows).verdict == "no"
    rows[first(table, "test")] = rows[first(table, "train")]
    report = audit(table, rows)
    assert leaks(report) == ["identical EEG in two parts"]
    assert report.verdict == "yes: 1 identical EEG window in two parts"


def test_a_test_trial_inside_the_corpus_is_found_at_any_offset_and_scale():
    table, stream = trials(), np.random.default_rng(0).standard_normal((4, 60_000), dtype=np.float32)
    corpus = np.random.default_rng(1).standard_normal((900, 4, 64), dtype=np.float32)
    rows = stream[:, 64 + 101 * np.arange(432)[:, None] + np.arange(64)].swapaxes(0, 1)
    assert audit(table, rows, corpus=corpus).verdict == "no"
    corpus[:300] = 3 * stream[:, : 300 * 64].reshape(4, 300, 64).swapaxes(0, 1) + 5
    report = audit(table, rows, corpus=corpus)
    inside = ((table["part"] == "test") & (64 + 101 * table.index + 64 <= 300 * 64)).sum()
    assert inside > 10
    assert leaks(report) == ["test trial inside the corpus"]
    assert found(report, "test trial inside the corpus").count in (inside, inside + 1)  # one may lie half inside
    assert "inside the pre-training corpus" in report.verdict


def test_several_leaks_stand_in_one_verdict_and_the_strongest_of_block_and_time_alone():
    table = trials("blocked")
    table.loc[first(table, "test"), "picture"] = table["picture"][first(table, "train")]
    verdict = audit(table).verdict
    assert verdict == "yes: 1 picture in two parts; the block tells the class (100 % against 16.7 %)"
    assert audit(table.sample(frac=1, random_state=3)).verdict == verdict


def test_false_alarms_are_rare_where_the_order_was_drawn_at_random():
    assert sum(audit(trials(seed=seed, n=144)).leaky for seed in range(60)) <= 1


def test_permutations_look_winners_up_and_rows_are_hashed_once(monkeypatch):
    """2376 trials: what a permutation does is one look-up for each of block, time and subject."""
    table, rows = trials(n=2376), np.random.default_rng(0).standard_normal((2376, 4, 8), dtype=np.float32)
    pictures = np.zeros((2376, 2, 2, 3), np.uint16) + np.arange(2376, dtype=np.uint16)[:, None, None, None]
    calls = {"votes": 0, "searches": 0, "hashes": 0}
    count_votes, searchsorted, blake2b = module._count_votes, np.searchsorted, hashlib.blake2b

    def counted(name, function):
        def call(*args, **options):
            calls[name] += 1
            return function(*args, **options)
        return call

    monkeypatch.setattr(module, "_count_votes", counted("votes", count_votes))
    monkeypatch.setattr(np, "searchsorted", counted("searches", searchsorted))
    monkeypatch.setattr(hashlib, "blake2b", counted("hashes", blake2b))
    audit(table, rows, pictures)
    assert calls["votes"] == 3
    assert calls["searches"] <= 3 * (module.PERMUTATIONS + 1) + 1
    assert calls["hashes"] == 2 * 2376


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.drop(columns=["block", "position"]), "no column block, position; expected item, subject"),
    (lambda t: t[t["part"] != "test"], "an empty part test"),
    (lambda t: t[:0], "an empty part train"),
    (lambda t: t.replace({"part": {"val": "dev"}}), "unknown part dev; expected train, val, test"),
    (lambda t: t.assign(item=0), "item 0 is repeated"),
    (lambda t: t.assign(label=t["label"].where(t["label"] != 3)), "column label is empty in 72 of 432 rows"),
    (lambda t: t.assign(position="early"), "position holds text"),
])
def test_a_table_that_is_not_one_of_trials_is_refused_in_one_line(change, message):
    with pytest.raises(BenchError, match=message) as error:
        audit(change(trials()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["NA", "n/a", "null", "None", "nan", "NULL"])
def test_a_class_may_be_named_like_a_missing_value(tmp_path, name):
    table = trials().assign(label=lambda t: t["label"].map({0: name}).fillna("other"), session=name)
    table.to_csv(tmp_path / "trials.csv", index=False)
    report = read(tmp_path)
    assert report.verdict == "no"
    assert found(report, "session in train and test").count == 72


@pytest.mark.parametrize("cell", ["", "  "])
@pytest.mark.parametrize("column", ["label", "position", "session"])
def test_an_empty_cell_of_the_table_is_refused_with_its_column(tmp_path, column, cell):
    table = trials(session=True).astype({column: object})
    table.loc[[3, 5], column] = cell
    table.to_csv(tmp_path / "trials.csv", index=False)
    with pytest.raises(BenchError, match=f"column {column} is empty in 2 of 432 rows"):
        read(tmp_path)


def test_every_check_that_was_not_possible_is_named_with_its_reason():
    report = audit(trials().assign(block=-1))
    unknown = {finding.name: finding.example for finding in report.findings if finding.severity == UNKNOWN}
    assert all(unknown.values())
    assert unknown.keys() >= {
        "identical picture under two ids", "exemplar in two parts", "identical EEG in two parts",
        "overlapping samples in two parts", "overlapping EEG in two parts", "test trial inside the corpus",
        "one channel tells the class", "known of the data set", "left-out column is trained on",
        "the block tells the class", "the session tells the class", "session in train and test"}
    assert [finding.name for finding in report.findings] == [
        finding.name for finding in audit(trials(session=True).assign(exemplar=lambda t: t["picture"]), eeg()).findings]


def test_trials_without_a_block_or_a_position_are_no_block_of_their_own_and_are_counted():
    """Half of a recording in class blocks has neither: what is known of the other half still tells its class."""
    table = trials("blocked")
    held = table["block"] >= 6
    table.loc[held, "block"], table.loc[held, "position"] = -1, -1
    report = audit(table)
    unknown = int((held & (table["part"] == "test")).sum())
    assert found(report, "block in train and test").count == 72 - unknown
    assert found(report, "neighbour in time is trained on").count <= 72 - unknown
    for name in ("the block tells the class", "the time tells the class", "block in train and test"):
        assert "; not checked: 216 trials without " in found(report, name).example
    table.loc[table["part"] == "train", "block"] = -1
    assert "no test trial shares its block" in found(audit(table), "the block tells the class").example


def test_arrays_that_do_not_fit_the_table_are_refused():
    with pytest.raises(BenchError, match="eeg has 431 rows for 432 trials"):
        audit(trials(), eeg(431))
    with pytest.raises(BenchError, match=r"corpus is float32 \[64\]; expected numbers \[windows, channels, "):
        audit(trials(), eeg(), corpus=eeg()[0, 0])
    with pytest.raises(BenchError, match=r"eeg is float32 \[432, 64\]; expected numbers \[trials, channels, "):
        audit(trials(), eeg()[:, 0])
    with pytest.raises(BenchError, match="rows of pictures, 0 to 99"):
        audit(trials(), pictures=np.zeros((100, 2, 2, 3), np.uint8))


def command(trials=None, store="none", scale="micro"):
    parser = ArgumentParser()
    command_audit.add_options(parser)
    given = ["--trials", str(trials)] if trials else []
    return command_audit.main(parser.parse_args([*given, "--store", str(store), "--scale", scale]), Console())


def test_the_command_audits_a_folder_and_ends_with_0_or_1(tmp_path, capsys):
    trials().to_csv(tmp_path / "trials.csv", index=False)
    assert command(tmp_path) == 0
    out = capsys.readouterr().out
    assert "288 train, 72 val, 72 test trials" in out
    assert "leaky: no" in out
    rows, table = eeg(), trials()
    np.save(tmp_path / "eeg.npy", rows)
    np.save(tmp_path / "corpus.npy", rows[[first(table, "test")]])
    assert command(tmp_path) == 1
    assert "leaky: yes: 1 test trial inside the pre-training corpus" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_read_in_one_line(tmp_path):
    with pytest.raises(BenchError, match=r"no .*trials\.csv; expected a table of trials with the columns item"):
        command(tmp_path)
    (tmp_path / "trials.csv").write_text("")
    with pytest.raises(BenchError, match="is not a readable CSV table"):
        command(tmp_path)
    trials().to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "eeg.npy").write_text("no array")
    with pytest.raises(BenchError, match=r"eeg\.npy cannot be read as an array:"):
        command(tmp_path)
    np.save(tmp_path / "eeg.npy", np.zeros((432, 4)))
    with pytest.raises(BenchError, match="expected 3 dimensions"):
        command(tmp_path)


def test_what_is_not_in_the_store_is_not_built_and_the_command_that_makes_it_is_named(tmp_path):
    with pytest.raises(BenchError, match="no trials of scale micro .* bench run --ablation clip --scale micro"):
        command(store=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_tiny_worlds_own_trials_are_clean_and_in_no_corpus(micro, capsys):
    assert micro.has(MICRO.items().trials)
    assert micro.has(Corpus(MICRO.world, MICRO.band))
    assert command(store=micro.root) == 0
    out = capsys.readouterr().out
    assert "leaky: no" in out
    assert [line.split()[5:7] for line in out.splitlines() if line.startswith("test trial inside")] == [["clear", "0"]]
    report = read(micro.path(MICRO.items().trials))
    assert found(report, "overlapping EEG in two parts").severity == CLEAR
    assert found(report, "channel of steps, no EEG").severity == CLEAR
    assert found(report, "one channel tells the class").severity in (CLEAR, FACT)


def test_auditing_imports_no_torch():
    code = "import sys, bench.scoring.audit; assert not {'torch', 'PIL', 'mne'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_a_damaged_store_is_not_audited(tmp_path):
    store = Store(tmp_path)
    stage = MICRO.items().trials
    store.build(stage, lambda out: trials().to_csv(out / "trials.csv", index=False))
    assert command(store=tmp_path) == 0
    (store.path(stage) / "trials.csv").write_text("item\n")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(BenchError, match="no trials of scale micro"):
        command(store=tmp_path)
