"""Descriptions of rows: short, unique within an ablation, and generated from the settings."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from bench import FULL, On, captions, own, replace, retrieval
from bench.experiment import ablation
from bench.experiment.describe import describe_change, describe_contrast, row_label
from bench.systems import guided


@pytest.mark.parametrize("name", ablation.names())
def test_every_ablations_rows_have_short_descriptions_that_are_unique(name):
    chosen = ablation.load(name)
    for rows in (chosen.variants, ablation.by_subject(chosen, [1, 2]).variants):
        labels = [row_label(v) for v in rows]
        assert len(set(labels)) == len(labels)
        assert max(map(len, labels)) <= 70
        assert all(label.startswith(v.name) for label, v in zip(labels, rows, strict=True))
    changes = [describe_change(v) for v in chosen.variants]
    assert len(set(changes)) == len(changes)
    assert max(map(len, changes)) <= (260 if name.startswith("released_") else 110)  # one row there changes 14 settings
    assert max(len(row_label(v)) for v in chosen.variants) <= 60


def test_the_rows_of_table_2_are_named_by_number_and_change():
    labels = {v.name: row_label(v) for v in ablation.load("table2").variants}
    assert labels["Full"] == "Full"
    assert labels["2"] == "2  no pre-training, no CLIP, encoder 18.3M"
    assert labels["3"] == "3  no pre-training"
    assert labels["5"] == "5  mask 0.25"
    assert labels["8"] == "8  encoder 458M"
    assert labels["12"] == "12  only E tuned"
    assert labels["13"] == "13  no CLIP"
    assert labels["14"] == "14  no CLIP, only A tuned"


@pytest.mark.parametrize(("spec", "change"), [
    (FULL, ""),
    (replace(FULL, name="x", align="label"), "labels instead of CLIP"),
    (replace(FULL, name="x", sd_loss=False), "CLIP loss alone"),
    (replace(FULL, name="x", tune="A-tau", time_condition=True, aligned="latent"),
     "only A tuned, tau frozen, h on tokens, condition through time step"),
    (replace(FULL, name="x", encoder="/home/me/own.py", size="74M"), "encoder 74M, encoder own"),
    (replace(FULL, name="x", encoder="braindecode:EEGConformer(pool_time_length=16)"), "encoder EEGConformer"),
    (replace(FULL, name="x", tau="released", decoder_mlp_ratio=1, class_token=True, rounding="kept"),
     "tau as released, decoder MLP ratio 1, class token, kept rounded"),
    (replace(FULL, name="x", tau="linear", decoder_mlp_ratio=2.5), "tau linear, decoder mlp ratio 2.5"),
    (On(FULL, "x", scaling="released", cut="truncated"), "scaled as released, EEG truncated"),
    (On(FULL, "x", eeg="zero", window="blank", split="block"), "EEG zero, interval before stimulus, split by block"),
    (On(FULL, "x", band=(14, 70), subjects=(1, 3), epochs=500), "14 to 70 Hz, subjects 1, 3, 500 epochs"),
    (On(FULL, "x", subjects=(1, 2, 3), views=0, part="val", checkpoint=(2, 5)),
     "subjects 1 to 3, crops drawn anew, on validation, checkpoint 2 of 5"),
    (On(FULL, "x", rates=0.5), "rates 0.5"),
    (On(FULL, "x", sampling={"sampler": "plms", "steps": 250}), "sampler plms, steps 250"),
    (On(FULL, "x", world={"snr": 0, "order": "blocked", "blocks": 10}), "class blocks, no signal"),
    (On(On(FULL, "y", band=(1, 95)), "x", subjects=(4,)), "1 to 95 Hz, subject 4"),
    (captions.Spec("x", classes="ridge"), "captions, classes ridge"),
    (On(retrieval.Spec(guided.Spec("y", encoder="nice"), "y"), "x", protocol="things"),
     "retrieval, guided, encoder nice, things"),
    (own.Spec("x", "folder/mine.py", {"neighbours": 5}), "own, file mine.py, neighbours 5"),
])
def test_each_setting_is_described(spec, change):
    assert describe_change(spec) == change


@pytest.mark.parametrize(("name", "changes", "label"), [
    ("3", {"mask_ratio": None}, "3  no pre-training"),
    ("3 at 1 to 95 Hz", {"mask_ratio": None}, "3 at 1 to 95 Hz  no pre-training"),
    ("A", {"tune": "A"}, "A  only A tuned"),
    ("linear", {"encoder": "linear"}, "linear"),
    ("my encoder", {"encoder": "mine.py"}, "my encoder"),
])
def test_a_label_does_not_repeat_what_the_name_says(name, changes, label):
    assert row_label(replace(FULL, name=name, **changes)) == label


def test_a_contrast_is_described_by_what_each_side_changes():
    rows = {v.name: v for v in ablation.load("table2").variants}
    assert describe_contrast(rows["Full"], rows["3"]) == "Full - 3 (no pre-training)"
    assert describe_contrast(rows["13"], rows["1"]) == "13 - 1 (no pre-training), both no CLIP"
    assert describe_contrast(rows["12"], rows["5"]) == "12 (only E tuned) - 5 (mask 0.25)"
    assert describe_contrast(FULL, On(FULL, "EEG shuffled", eeg="shuffled")) == "Full - EEG shuffled"


@dataclass(frozen=True)
class Theirs:
    """The settings of a system that the suite does not know."""

    name: str = field(compare=False)
    width: int
    rate: float = 0.5
    layers: tuple[int, ...] = field(default_factory=tuple)
    of_what: Any = None

    system: ClassVar[str] = "theirs"


def test_any_spec_is_described():
    assert describe_change(Theirs("x", 3)) == "theirs, width 3"
    assert describe_change(Theirs("x", 3, 0.25, (1, 2), "a")) == "theirs, width 3, rate 0.25, layers 1 to 2, of what a"
