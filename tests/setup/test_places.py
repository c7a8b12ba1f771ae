"""A user's data set: writing it, and using it in a scale."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from formats import write_things
from paper import PAPER

from bench import FULL, On, systems
from bench.data import own, prepared, things
from bench.data.pictures import CLASSES, draw_scenes, render
from bench.errors import ENVIRONMENT, BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import ablation, datasets, graph
from bench.experiment.scale import REHEARSAL, TINY
from bench.experiment.stages import Items, Trials
from bench.setup import places
from bench.setup import rows as rows_
from bench.setup.request import Request
from bench.store.store import Store
from bench.systems import captions
from bench.train.items import load

RNG = np.random.default_rng(0)
SCENES = draw_scenes(24, 3, RNG)
EEG = RNG.standard_normal((48, 5, 40)) * 10
PARTS = np.tile(np.repeat(["train", "val", "test"], [12, 6, 6]), 2)


def arguments(**changes):
    """Two people who saw 24 pictures of three classes."""
    trials = {"subject": np.repeat([3, 7], 24), "picture": np.tile(np.arange(24), 2),
              "label": np.tile(SCENES.label, 2), "position": np.tile(np.arange(24), 2), "part_item": PARTS}
    return {"eeg": EEG, "sfreq": 100.0, "band": (1, 40), "pictures": render(SCENES), "trials": trials,
            "classes": {name: CLASSES.index(name) for name in CLASSES[:3]},
            "leaky": "no: pictures came in random order"} | changes


def trials(**changes):
    return {"trials": arguments()["trials"] | changes}


def request(data, **changes):
    return Request(**{"pairs": "mine", "store": data / "store", "data": data} | changes)


@pytest.fixture
def data(tmp_path):
    own.prepare(tmp_path / "mine", **arguments())
    return tmp_path


def test_what_is_written_is_what_was_given(data):
    world = datasets.find_pairs("mine", data)
    assert (world.n_chans, world.n_times, world.sfreq) == (5, 40, 100.0)
    assert prepared.verify(data / "mine") == []
    assert np.array_equal(np.load(data / "mine/eeg_1-40.npy"), EEG.astype(np.float16))
    assert np.array_equal(np.load(data / "mine/pictures.npy"), render(SCENES))
    table = pd.read_csv(data / "mine/trials.csv")
    assert list(table) == [*prepared.COLUMNS, "part_item"]
    for name, values in arguments()["trials"].items():
        assert table[name].tolist() == values.tolist()
    assert (table["block"] == -1).all()
    assert table["item"].tolist() == list(range(48))
    classes = pd.read_csv(data / "mine/classes.csv")
    assert classes.to_numpy().tolist() == [[0, "circle", 0, 1], [1, "square", 1, 1], [2, "triangle", 2, 1]]
    assert prepared.describe_leak(world, "item") == "no: pictures came in random order"


def test_the_same_arrays_are_the_same_data_set_and_others_another(data, tmp_path):
    first = datasets.find_pairs("mine", data)
    own.prepare(data / "mine", **arguments())
    assert datasets.find_pairs("mine", data) == first
    own.prepare(data / "mine", **arguments(eeg=EEG + 1))
    assert datasets.find_pairs("mine", data) != first


def test_further_splits_columns_and_names_of_electrodes_are_kept(tmp_path):
    block, names = np.tile(np.repeat(["train", "test"], 12), 2), ["Fz", "Cz", "Pz", "O1", "O2"]
    own.prepare(tmp_path / "mine", **arguments(
        **trials(part_block=block, session=np.ones(48, int), item=np.arange(100, 148)), ch_names=names,
        leaky={"item": "yes: blocks of one class", "block": "no: whole blocks"}))
    world = datasets.find_pairs("mine", tmp_path)
    assert json.loads((tmp_path / "mine/manifest.json").read_text())["ch_names"] == names
    assert prepared.describe_leak(world, "block") == "no: whole blocks"
    store = Store(tmp_path / "store")
    stage = Trials(world, (7,), (1.0, 40.0), split="block")
    loaded = load(Items(stage), build(stage, store))
    assert loaded.item.tolist() == list(range(136, 148))
    assert (pd.read_csv(store.path(stage) / "trials.csv")["session"] == 1).all()


def test_trials_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    eeg = EEG.copy()
    eeg[3, 0, 5], eeg[20] = np.nan, 0.0
    own.prepare(tmp_path / "mine", **arguments(eeg=list(eeg)))
    manifest = json.loads((tmp_path / "mine/manifest.json").read_text())
    assert manifest["rejected"] == {"not finite": 1, "flat": 1}
    assert set(range(48)) - set(pd.read_csv(tmp_path / "mine/trials.csv")["item"]) == {3, 20}
    assert len(np.load(tmp_path / "mine/eeg_1-40.npy")) == 46


WIDE = RNG.standard_normal((48, 12, 40)) * 10  # of twelve electrodes
NAMES = [f"E{number}" for number in range(12)]


def with_channel(values, eeg=WIDE):
    """The EEG with one of its channels replaced: by a value for each trial, or by [N, T]."""
    eeg = eeg.copy()
    eeg[:, 7] = np.reshape(values, (48, -1))
    return eeg


def test_trials_that_are_half_zeros_or_hold_a_value_are_left_out_and_counted(tmp_path):
    eeg = WIDE.copy()
    eeg[3, :, 20:], eeg[8, :, 10:16], eeg[9, :, 10:15] = 0, eeg[8, :, 10:11], 0  # 200, 60 and 50 ms
    own.prepare(tmp_path / "mine", **arguments(eeg=eeg))
    manifest = json.loads((tmp_path / "mine/manifest.json").read_text())
    assert manifest["rejected"] == {"constant": 2}
    assert set(range(48)) - set(pd.read_csv(tmp_path / "mine/trials.csv")["item"]) == {3, 8}


@pytest.mark.parametrize("factor", [100, 0.01])
def test_a_channel_of_another_scale_is_replaced_and_named(tmp_path, factor):
    eeg = WIDE.copy()
    eeg[:10, 7] *= factor
    eeg[40, [2, 7]] *= factor
    own.prepare(tmp_path / "mine", **arguments(eeg=eeg, ch_names=NAMES))
    manifest = json.loads((tmp_path / "mine/manifest.json").read_text())
    assert manifest["repaired"] == {"channel of another scale": 10}
    assert manifest["bad_channels"] == {"E7 (scale)": 10}
    assert manifest["rejected"] == {"scale": 1}
    written = np.load(tmp_path / "mine/eeg_1-40.npy")
    assert np.array_equal(written[:10, 7], written[:10, 8])
    assert np.array_equal(written[10:40], WIDE[10:40].astype(np.float16))


ONSET = np.arange(40) == 3
NUMBERS = RNG.permutation(24)[np.arange(48) % 24]  # one for each picture


@pytest.mark.parametrize("codes", [
    np.tile(SCENES.label, 2) + 1, NUMBERS, 0.25 * NUMBERS, np.arange(48) % 20, np.arange(48), NUMBERS[:, None] * ONSET,
    (0.25 * (NUMBERS[:, None] % 20) + 1) * ONSET, 3.1e-3 * NUMBERS[:, None] + ONSET,
], ids=["classes", "pictures", "times 0.25", "twenty classes", "order", "at the onset", "twenty, times 0.25", "offset"])
def test_a_channel_of_codes_is_refused_with_its_name_whatever_the_codes(tmp_path, codes):
    with pytest.raises(BenchError, match=r"mine: channel E7 holds \d+ distinct values, as a trigger channel does"):
        own.prepare(tmp_path / "mine", **arguments(eeg=with_channel(codes), ch_names=NAMES))
    with pytest.raises(BenchError, match=r"mine: channel 4 holds \d+ distinct values, as a trigger channel does"):
        own.prepare(tmp_path / "mine", **arguments(eeg=with_channel(codes)[:, 3:8]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [np.float16, np.int16])
def test_eeg_of_coarse_steps_is_prepared(tmp_path, kind):
    own.prepare(tmp_path / "mine", **arguments(eeg=np.rint(WIDE / 4).astype(kind)))  # 17 levels
    assert json.loads((tmp_path / "mine/manifest.json").read_text())["rejected"] == {}


@pytest.mark.parametrize("name", ["Status", "STI 014", "TRIG", "DIN1", "Event", "Marker", "stim"])
def test_a_channel_named_as_a_trigger_channel_is_refused_with_its_name(tmp_path, name):
    with pytest.raises(BenchError, match=f"mine: channel {name} holds triggers by its name"):
        own.prepare(tmp_path / "mine", **arguments(eeg=WIDE, ch_names=[*NAMES[:11], name]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("changes", "said"), [
    ({"eeg": EEG[:47]}, "48 trials and the EEG of 47; expected the same number"),
    ({"eeg": EEG[..., :39]}, "39 time steps; expected a multiple of 4, the steps of a token: leave out the last 3"),
    ({"eeg": EEG[:, 0]}, "the EEG of a trial is float64 [40]; expected numbers [channels, time steps]"),
    ({"eeg": [*EEG[:9], EEG[9, :4], *EEG[10:]]}, "the EEG of trial 9 is [4, 40]; expected [5, 40], as that of trial 0"),
    ({"eeg": EEG * 1e-6}, "is it in another unit?"),
    ({"eeg": np.concatenate([EEG[:47], EEG[:1]])}, "trials 0 (train) and 47 (test) of the split 'item' hold the same"),
    ({"pictures": render(SCENES).astype(float)}, "pictures are float64 [24, 32, 32, 3]; expected uint8 [images, side,"),
    ({"pictures": render(SCENES)[:, :16]}, "pictures are uint8 [24, 16, 32, 3]; expected uint8 [images, side, side,"),
    ({"pictures": render(SCENES)[:20]}, "trial 20 has picture 20; expected 0 to 19, a row of `pictures`"),
    ({"classes": {"circle": 0, "square": 1}}, "has label 2; expected 0 to 1, an index in `classes`"),
    ({"classes": {"circle": 0, "square": 1, "triangle": 2, "star": 3}}, "no usable trial shows the class"),
    ({"classes": {"circle": 0, "square": 1, "triangle": None}}, "class 'triangle' has the judge's number None"),
    ({"leaky": ""}, "leaky of the split 'item' is ''; expected 'no: ' or 'yes: ' and the reason"),
    ({"leaky": {"block": "no: x"}}, "leaky of the split 'item' is ''"),
    ({"band": (40, 1)}, "band=(40, 1), sfreq=100.0: expected two ascending numbers in Hz"),
    ({"ch_names": ["Fz", "Cz"]}, "2 different ch_names for 5 channels"),
    ({"trials": {"subject": [1]}}, "1 trials and the EEG of 48"),
    ({"trials": {"subject": [1], "label": [1, 2]}}, "the columns of the trials do not fit together"),
    ({"trials": {"subject": np.ones(48, int), "label": np.zeros(48, int)}}, "the trials have no column picture"),
    (trials(label=["circle"] * 48), "the trials' column label holds"),
    (trials(position=[*range(47), np.nan]), "the trials' column position holds float64; expected whole numbers"),
    (trials(item=[5] * 48), "several trials have the item 5"),
    (trials(part="train"), "expected one column for each split, such as part_item"),
    (trials(part_item=["train"] * 48), "the trials' column part_item gives no trial to test"),
    (trials(part_item=["train", "dev"] * 24), "part_item has 'dev'; expected train, val, test or ''"),
])
def test_what_is_no_data_set_is_refused_in_one_line_and_nothing_is_written(changes, said, tmp_path):
    with pytest.raises(BenchError) as caught:
        own.prepare(tmp_path / "mine", **arguments(**changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["corpora", "my data", ".hidden", "a,b"])
def test_a_name_that_is_none_is_refused(name, tmp_path):
    with pytest.raises(BenchError, match="cannot name a data set"):
        own.prepare(tmp_path / name, **arguments())


def test_a_scale_is_put_on_a_data_set_and_keeps_everything_else(data):
    at = places.resolve_scale(request(data))
    assert at == replace(TINY, world=datasets.find_pairs("mine", data), people=(3, 7), subjects=(3, 7),
                         band=(1.0, 40.0), fixed=(0, 1, 2, 3))
    assert at.items().trials == Trials(at.world, (3, 7), (1.0, 40.0))
    with pytest.raises(NotAvailable, match=r"scale tiny has no corpus for pre-training .* mine, \[5, 40\]"):
        systems.plan(FULL, at.items(), at, 0)
    fresh = systems.plan(replace(FULL, mask_ratio=None), at.items(), at, 0)
    assert fresh.pictures.model.items.trials == at.items().trials
    rows = rows_.rows([captions.Spec()], at, [0])
    assert [row.items for row in rows] == ["real", "captions", "readout", "readout"]
    with pytest.raises(NotAvailable, match="PLMS cannot start"):
        systems.plan(On(captions.Spec(), "plms", sampling={"sampler": "plms"}), at.items(), at, 0)
    assert places.resolve_scale(request(data, pairs="")) == TINY


def test_the_band_of_the_scale_is_kept_where_the_data_set_has_it(tmp_path):
    own.prepare(tmp_path / "mine", **arguments(band=(5, 95)))
    assert places.resolve_scale(request(tmp_path)).band == TINY.band


def test_a_data_set_that_is_not_there_is_named_beside_those_that_are(data):
    with pytest.raises(BenchError, match=r"--pairs other: no such data set in .*; there are: mine") as caught:
        places.resolve_scale(request(data, pairs="other"))
    assert caught.value.exit_code == ENVIRONMENT
    with pytest.raises(BenchError, match="there are: none"):
        places.resolve_scale(request(data / "mine", pairs="../mine"))


def test_pictures_of_another_side_and_classes_that_the_judge_does_not_know_are_refused(tmp_path):
    own.prepare(tmp_path / "large", **arguments(pictures=render(SCENES, 64)))
    with pytest.raises(BenchError, match="images are 64 x 64; scale tiny needs 32 x 32"):
        places.resolve_scale(request(tmp_path, pairs="large"))
    for number in (16, -1):
        own.prepare(tmp_path / "cats", **arguments(classes={"circle": 0, "cat": number, "triangle": 2}))
        with pytest.raises(BenchError, match=f"class 'cat' has the judge's number {number}; the judge of scale tiny "
                                             "knows 0 to 15"):
            places.resolve_scale(request(tmp_path, pairs="cats"))


def test_a_corpus_of_other_windows_is_no_corpus_for_the_data_set(data):
    for name, n_chans, n_times in (("same", 5, 40), ("other", 128, 512)):
        (data / "corpora" / name).mkdir(parents=True)
        (data / "corpora" / name / "manifest.json").write_text(json.dumps({
            "kind": "corpus", "schema": 1, "name": name, "n_chans": n_chans, "window": {"n_times": n_times},
            "band": [5, 95], "windows": 0, "shards": [], "files": {}}))
    at = places.resolve_scale(request(data, corpus="same"))
    assert at.corpus == datasets.find_corpus("same", data)
    assert systems.plan(FULL, at.items(), at, 0).pictures.model.start.corpus.world == at.corpus
    with pytest.raises(BenchError, match=r"corpus other has windows \[128, 512\], data set mine has EEG \[5, 40\]"):
        places.resolve_scale(request(data, corpus="other"))
    with pytest.raises(BenchError, match="--corpus same: scale tiny has a corpus of its own"):
        places.resolve_scale(request(data, pairs="", corpus="same"))


def test_scale_paper_is_put_on_one_and_the_rehearsal_is_not(data):
    with pytest.raises(BenchError, match="scale rehearsal makes its own data; expected scale tiny, micro, paper"):
        places.use_dataset(REHEARSAL, "mine", data)
    large = trials(picture=[0] * 48) | {"pictures": render(SCENES[:1], 512)}
    own.prepare(data / "large", **arguments(**large))
    at = places.use_dataset(PAPER, "large", data)
    assert at.corpus is None
    assert at.fixed == (0, 1, 2, 3)
    own.prepare(data / "like", **arguments(eeg=RNG.standard_normal((48, 128, 512)), **large))
    assert places.use_dataset(PAPER, "like", data).corpus == PAPER.corpus
    assert places.use_dataset(PAPER, "imagenet_eeg", data) is PAPER


def things_rows(at, name="guided_encoders"):
    return graph.stages([systems.plan(v, at.items(), at, 0) for v in ablation.load(name).variants])


@pytest.mark.parametrize(("variant", "n_chans", "n_times"), [("nice", 63, 248), ("gifford", 17, 80)])
def test_a_prepared_things_eeg2_of_either_variant_is_what_protocol_things_is_about(variant, n_chans, n_times, tmp_path):
    write_things(tmp_path / "source", variant)
    things.prepare(tmp_path / "source", tmp_path / "things_eeg2", tmp_path / "source" / "images", val_concepts=2,
                   size=16)
    at = places.resolve_paths(PAPER, tmp_path, tmp_path, tmp_path, needed=False)
    assert at.things == replace(PAPER.things, world=datasets.find_pairs("things_eeg2", tmp_path))
    assert at.world == PAPER.world
    planned = things_rows(at)
    assert {stage.world for stage in planned if isinstance(stage, Trials)} == {at.things.world}
    assert (at.things.world.n_chans, at.things.world.n_times) == (n_chans, n_times)
    with pytest.raises(BenchError, match=r"missing weights: .*; get them with: bench fetch --what") as caught:
        places.require_data(planned, request(tmp_path, weights=tmp_path))
    assert caught.value.exit_code == ENVIRONMENT
    assert "adapter" in str(caught.value)


def test_things_eeg2_is_asked_for_by_the_rows_that_are_about_it_alone(tmp_path):
    at = places.resolve_paths(PAPER, tmp_path, tmp_path, tmp_path, needed=False)
    assert at.things == PAPER.things
    with pytest.raises(BenchError, match=r"no prepared data set at .*; prepare it: bench data prepare things_eeg2 "
                                         "--from DIR") as caught:
        places.require_data(things_rows(at), request(tmp_path))
    assert caught.value.exit_code == ENVIRONMENT
    assert "\n" not in str(caught.value)
    there = replace(at, world=replace(at.world, path="somewhere"))
    places.require_data(things_rows(there, "table2"), request(tmp_path))


def test_pretraining_on_protocol_things_needs_a_corpus_of_its_windows():
    full = On(FULL, "full", protocol="things")
    with pytest.raises(NotAvailable, match=r"no corpus for pre-training with windows like .* things_eeg2, \[63, 248\]"):
        systems.plan(full, PAPER.items(), PAPER, 0)
    fits = replace(PAPER, corpus=replace(PAPER.corpus, name="mine", n_chans=63, n_times=248))
    assert systems.plan(full, fits.items(), fits, 0).pictures.model.start.corpus.world == fits.corpus
    fresh = systems.plan(replace(full, of=replace(FULL, mask_ratio=None)), PAPER.items(), PAPER, 0)
    assert fresh.items.trials.world == PAPER.things.world
    with pytest.raises(NotAvailable, match=r"imagenet_eeg, \[128, 512\]"):
        systems.plan(FULL, fits.items(), fits, 0)


@pytest.mark.parametrize(("name", "place", "said"), [
    ("classes.csv", -2, "classes.csv is missing, or has another SHA-256"),
    ("pictures.npy", 30, "pictures.npy cannot be read as images")])
def test_a_damaged_file_of_the_data_set_ends_the_plan(data, name, place, said):
    content = bytearray((data / "mine" / name).read_bytes())
    content[place] ^= 1
    (data / "mine" / name).write_bytes(content)
    with pytest.raises(BenchError, match=said) as caught:
        places.resolve_scale(request(data))
    assert caught.value.exit_code == 3
