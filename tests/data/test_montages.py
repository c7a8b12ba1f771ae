"""Nested sets of electrodes: their names and positions, what they keep of trials and corpora, and what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
from safetensors.numpy import load_file

from bench import FULL, On, systems
from bench.cost.flops import flops
from bench.data import catalogue, corpora, montages, own, shard_writer, shards
from bench.data.recordings import normalise
from bench.data.tiny import DEVICES, electrode_positions
from bench.errors import ENVIRONMENT, BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import ablation, datasets
from bench.experiment.scale import MICRO
from bench.experiment.stages import Corpus, Finetune, Pretrain, Trials
from bench.setup.places import load_scale
from bench.setup.rows import keep_available, rows
from bench.store.store import Store
from bench.train.pretrain import _open_corpus

TRIALS = Trials(MICRO.world, MICRO.subjects, MICRO.band)
PLACES = electrode_positions(32)
RNG = np.random.default_rng(0)


def row(channels, of=FULL, **changes):
    return On(of, f"{channels} channels", channels=channels, **changes)


def test_every_cap_has_its_number_of_electrodes_and_those_of_the_next_smaller_one():
    sizes = sorted(montages.CAPS)
    assert sizes == [8, 16, 24, 32, 64, 128]
    for size in sizes:
        assert len({name.lower() for name in montages.CAPS[size]}) == size
    for small, large in itertools.pairwise(sizes):
        assert set(montages.CAPS[small]) < set(montages.CAPS[large])


def test_the_largest_cap_is_brain_products_and_the_small_ones_lie_on_both_sides_of_the_head():
    montage = mne.channels.make_standard_montage("brainproducts-RNP-BA-128").ch_names
    assert set(montages.CAPS[128]) == set(montage) - {"FCz", "Fpz"}  # reference and ground
    for size in (8, 16, 24, 32):
        sides = Counter(int(name[-1]) % 2 for name in montages.CAPS[size] if name[-1].isdigit())
        assert sides[0] == sides[1]
    assert {"Fz", "Cz", "Pz", *montages.CAPS[16]} < set(montages.CAPS[24])  # the 19 electrodes of the 10-20 system


def test_channels_are_chosen_by_name_whatever_their_order_their_case_and_their_age():
    names = ["X1", "O2", "T3", "t7", "FP1", "C3", ""]
    assert montages.pick_names(names, 16).tolist() == [1, 2, 4, 5]  # T3 is T7, of which the first is taken
    assert montages.pick_names(names, 8).tolist() == [1, 4, 5]
    assert montages.pick_names(["E1", "E2"], 8).tolist() == []


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_electrodes_with_positions_are_nested_and_far_from_each_other(device):
    places = electrode_positions(device.n_chans, device.turn)
    chosen = {size: montages.pick_positions(places, size).tolist() for size in (32, *montages.TINY)}
    assert chosen[32] == list(range(device.n_chans))
    assert set(chosen[4]) < set(chosen[8]) <= set(chosen[16]) <= set(chosen[32])
    for size, rows_ in chosen.items():
        assert rows_ == sorted(rows_)
        assert len(rows_) == min(size, device.n_chans)

    def nearest(those):
        apart = np.linalg.norm(places[those][:, None] - places[those], axis=-1)
        return apart[apart > 0].min()

    assert nearest(chosen[4]) >= nearest(chosen[8]) >= nearest(chosen[16]) >= nearest(chosen[32])
    assert nearest(chosen[4]) > nearest(list(range(4)))


def test_fewer_electrodes_are_in_the_keys_of_trials_pre_training_and_model_and_all_of_them_are_full():
    full, few = (systems.plan(spec, MICRO.items(), MICRO, 0) for spec in (FULL, row(8)))
    assert systems.plan(On(FULL, "all"), MICRO.items(), MICRO, 0).key == full.key
    models = [score.pictures.model for score in (full, few)]
    assert len({model.items.trials.key for model in models}) == 2
    assert len({model.start.key for model in models}) == len({model.start.corpus.key for model in models}) == 2
    assert (few.items.trials.n_chans, models[1].start.corpus.n_chans, full.items.trials.n_chans) == (8, 8, 32)
    assert few.reference == full.reference  # the same real images


def test_tiny_trials_of_fewer_electrodes_are_the_recording_of_these_electrodes(micro, tmp_path):
    store = Store(tmp_path)
    eeg = np.load(build(replace(TRIALS, channels=8), store) / "eeg.npy")
    expected = normalise(np.load(micro.path(TRIALS) / "eeg.npy")[:, montages.pick_positions(PLACES, 8)])
    assert eeg.shape == (MICRO.world.pictures, 8, MICRO.world.n_times)
    assert np.allclose(eeg, expected, atol=1e-4)


def test_a_tiny_device_keeps_electrodes_of_its_own_and_a_smaller_one_repeats_them(micro, tmp_path):
    folder = build(Corpus(MICRO.world, MICRO.band, 16), Store(tmp_path))
    windows = np.load(folder / "windows.npy")
    every = np.load(micro.path(Corpus(MICRO.world, MICRO.band)) / "windows.npy")
    device = np.genfromtxt(folder / "index.csv", delimiter=",", dtype=str, skip_header=1)[:, 2]
    assert windows.shape == (len(every), 16, MICRO.world.n_times)
    for each in DEVICES:
        places = montages.pick_positions(electrode_positions(each.n_chans, each.turn), 16)
        expected = normalise(every[device == each.name][:, places])
        assert np.allclose(windows[device == each.name], expected[:, np.arange(16) % len(places)], atol=1e-4)


def test_a_row_on_four_electrodes_trains_from_a_pre_training_on_four(micro):
    model = systems.plan(row(4), MICRO.items(), MICRO, 0).pictures.model
    assert isinstance(model, Finetune)
    assert isinstance(model.start, Pretrain)
    for stage in (model.start.corpus, model.items.trials, model.targets, model.start, model):
        build(stage, micro)
    for stage, channels in ((model.start, 4), (systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start, 32)):
        weights = load_file(micro.path(stage) / "encoder.safetensors")
        assert channels * stage.encoder.patch in {size for tensor in weights.values() for size in tensor.shape}


# A prepared corpus

@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Windows of three people: 16 electrodes in two orders, and a cap of which no electrode has a standard name."""
    root, truth, receipts = tmp_path_factory.mktemp("data"), [], []
    work = corpora.open_work_folder(root / "corpora" / "named", catalogue.Cutting())
    names = [*montages.CAPS[16], *(f"X{number}" for number in range(16))]
    for subject, order in ((1, [names, names[::-1]]), (2, [names]), (3, [[f"E{number}" for number in range(40)]])):
        writer = shard_writer.ShardWriter(work, "a", subject)
        for run, ch_names in enumerate(order):
            windows = RNG.standard_normal((3, len(ch_names), 512)).astype(np.float16)
            writer.add(windows, [("0", str(run), float(i)) for i in range(3)], 250.0, [5.0, 95.0], ch_names=ch_names)
            truth += [(window, ch_names) for window in windows]
        receipts.append(writer.close(Counter(), Counter()))
    wanted = {"band": [5.0, 95.0], "datasets": ["a"], "subjects": None,
              "window": {"n_times": 512, "per_subject": None, "sfreq": None, "stride": 512}}
    shard_writer.finish_corpus("named", root, work, receipts, wanted, [])
    return datasets.find_corpus("named", root), truth


def test_recordings_of_one_person_with_other_channels_are_other_shards(corpus):
    value, _ = corpus
    manifest = shards.read_manifest(Path(value.path), value.sha256)
    assert [shard["file"] for shard in manifest["shards"]] == [
        "a/sub-001_C032.npy", "a/sub-001_C032_2.npy", "a/sub-002_C032.npy", "a/sub-003_C040.npy"]
    assert [shard["ch_names"][0] for shard in manifest["shards"]] == ["Fp1", "X15", "Fp1", "E0"]


@pytest.mark.parametrize("channels", [8, 24])
def test_a_corpus_gives_the_electrodes_of_each_recording_by_name_and_repeats_them(corpus, channels):
    value, truth = corpus
    windows = shards.open_shards(Path(value.path), value.sha256, channels)
    assert windows.n_chans == channels
    assert windows.readable.tolist() == [True] * 9 + [False] * 3
    found = windows.gather(np.arange(9)).numpy()
    for window, (stored, names) in zip(found, truth[:9], strict=True):
        picks = montages.pick_names(names, channels)
        expected = normalise(stored[None, picks].astype(np.float32))[0]
        assert len(picks) == min(channels, 16)
        assert np.allclose(window, expected[np.arange(channels) % len(picks)], atol=2e-3)
        assert window[: len(picks)].std() == pytest.approx(1, abs=0.01)


def test_recordings_without_the_electrodes_are_left_out_of_training_and_of_the_audit(corpus, tmp_path):
    value, _ = corpus
    stage = Corpus(value, (5.0, 95.0), 8)
    folder = build(stage, Store(tmp_path))
    windows = _open_corpus(stage, folder)
    every = shards.open_shards(Path(value.path), value.sha256)
    for part in ("train", "held_out"):
        rows_ = every.rows(part)
        if len(rows_[rows_ < 9]):
            assert windows.rows(part).tolist() == rows_[rows_ < 9].tolist()
        else:
            with pytest.raises(BenchError, match=f"part '{part}' of the corpus has no recording with one of the 8"):
                windows.rows(part)
    assert shards.read_first_channels(folder).shape == (9, 1, 512)


def test_a_corpus_without_names_of_channels_is_refused_before_the_run_and_when_it_is_read(corpus, tmp_path):
    value, _ = corpus
    work = corpora.open_work_folder(tmp_path / "corpora" / "bare", catalogue.Cutting())
    receipts = []
    for subject in (1, 2):
        writer = shard_writer.ShardWriter(work, "a", subject)
        writer.add(np.ones((2, 32, 512), np.float16), [("0", "0", 0.0), ("0", "0", 1.0)], 250.0, [5.0, 95.0])
        receipts.append(writer.close(Counter(), Counter()))
    shard_writer.finish_corpus("bare", tmp_path, work, receipts, {
        "band": [5.0, 95.0], "datasets": ["a"], "subjects": None, "window": {"n_times": 512}}, [])
    bare, paper = datasets.find_corpus("bare", tmp_path), load_scale("paper")
    with pytest.raises(NotAvailable, match="corpus bare cannot be reduced to 8 electrodes: its manifest states no"):
        systems.plan(row(8), paper.items(), replace(paper, corpus=bare), 0)
    assert systems.plan(row(8), paper.items(), replace(paper, corpus=value), 0)
    with pytest.raises(BenchError, match="states no names of channels, by which 8 electrodes could be") as caught:
        shards.open_shards(Path(bare.path), bare.sha256, 8)
    assert caught.value.exit_code == ENVIRONMENT


# Paired data

def prepare(folder, ch_names, n_chans=40):
    """A prepared data set of 24 random trials."""
    n = 24
    part = np.resize(["train", "val", "test"], n)
    eeg = RNG.standard_normal((n, n_chans, 64)).astype(np.float32) * 10
    own.prepare(folder / "mine", eeg=eeg, sfreq=128.0, band=(1.0, 40.0), ch_names=ch_names,
                pictures=RNG.integers(0, 255, (n, 32, 32, 3), np.uint8), classes={"circle": 0, "square": 1},
                trials={"subject": np.full(n, 1), "picture": np.arange(n), "label": np.arange(n) % 2,
                        "part_item": part}, leaky="no: random order")
    return datasets.find_pairs("mine", folder)


def test_a_prepared_data_set_gives_its_electrodes_by_name_normalised_as_a_smaller_cap(tmp_path):
    names = [f"X{number}" for number in range(32)] + list(montages.CAPS[8][::-1])
    world = prepare(tmp_path, names)
    few, every = (np.load(build(Trials(world, (1,), (1.0, 40.0), channels=channels), Store(tmp_path / "store"))
                          / "eeg.npy").astype(np.float32) for channels in (8, None))
    assert few.shape == (24, 8, 64)
    assert np.allclose(few, normalise(every[:, 32:]), atol=0.02)


@pytest.mark.parametrize(("names", "channels", "reason"), [
    ((), 8, "the names of its channels are not known: prepare it with ch_names"),
    ([f"X{number}" for number in range(40)], 8, "it has no electrode Fp1, Fp2, C3, C4, P7, P8, O1, O2"),
    ([*montages.CAPS[8][:7], *(f"X{number}" for number in range(33))], 8, "it has no electrode O2"),
    ((), 40, "it has 40 channels; channels=40 needs more than 40"),
    ((), 12, "there is no set of 12 electrodes; there are sets of 128, 64, 32, 24, 16, 8"),
])
def test_a_data_set_without_the_electrodes_is_refused_in_one_line(tmp_path, names, channels, reason):
    world = prepare(tmp_path, names)
    scale = replace(MICRO, world=world, subjects=(1,), people=(1,), band=(1.0, 40.0))
    with pytest.raises(NotAvailable) as caught:
        systems.plan(row(channels, replace(FULL, mask_ratio=None)), scale.items(), scale, 0)
    assert str(caught.value) == f"variant '{channels} channels': mine cannot be reduced to {channels} electrodes: " + (
        f"{reason}, as electrodes are chosen by name and never by number" if "ch_names" in reason else reason)
    if channels == 8:
        with pytest.raises(BenchError, match="cannot be reduced to 8 electrodes"):
            build(Trials(world, (1,), (1.0, 40.0), channels=8), Store(tmp_path / "store"))


@pytest.mark.parametrize(("spec", "reason"), [
    (row(32), "the tiny world cannot be reduced to 32 electrodes: it has 32 channels"),
    (row(24), "there is no set of 24 electrodes; there are sets of 16, 8, 4"),
    (row(8, protocol="things", world={"n_chans": 8}), "it has 8 channels; channels=8 needs more than 8"),
    (row(8, replace(FULL, encoder="braindecode:EEGNet", mask_ratio=None)), "models of braindecode are planned for all"),
])
def test_what_the_tiny_world_cannot_have_is_refused(spec, reason):
    with pytest.raises(NotAvailable, match=reason):
        systems.plan(spec, MICRO.items(), MICRO, 0)


def test_channels_must_be_a_number():
    for value in (0, True, 8.0):
        with pytest.raises(BenchError, match="channels must be an integer of at least 1"):
            row(value)


# The ablation

def test_the_ablation_has_every_size_with_and_without_pre_training_and_probes_of_each_encoder():
    found = keep_available(ablation.load("channels"), MICRO, log=False)
    names = [variant.name for variant in found.variants]
    assert names == ["Full", "16 channels", "8 channels", "4 channels", "no pre-training",
                     *(f"{size} channels without pre-training" for size in (16, 8, 4))]
    assert [pair for pair in found.contrasts if pair in found.primary] == [("Full", name) for name in names[1:4]]
    table = rows(found.variants, MICRO, [0])
    probes = {line.variant: line.stage for line in table if line.items == "probe"}
    assert list(probes) == [*names[:4], *(f"{name}, untrained encoder" for name in names[4:])]
    for name, probe in probes.items():
        assert probe.train.trials.channels == probe.test.trials.channels
        if "untrained" not in name:
            assert probe.test.trials.channels == probe.encoder.corpus.channels
        assert probe.test.trials.n_chans == (int(name.split()[0]) if name[0].isdigit() else 32)
    beside = {line.items: line.stage for line in table if line.beside and line.items != "probe"}
    assert {stage.items.trials.channels for kind, stage in beside.items() if kind in ("shuffled", "captions")} == {None}
    assert beside["readout"].test.trials.channels is None


def test_at_paper_scale_the_price_falls_with_the_electrodes_and_names_are_those_that_the_authors_stated():
    paper = load_scale("paper")
    found = keep_available(ablation.load("channels"), paper, log=False)
    pretrained = [variant for variant in found.variants if "pre-training" not in variant.name]
    assert [variant.name for variant in pretrained] == ["Full", *(f"{n} channels" for n in (32, 24, 16, 8))]
    small = replace(FULL, size="18.3M")
    prices = [flops(systems.plan(On(small, "small", channels=n), paper.items(), paper, 0).pictures.model.start)
              for n in (None, 32, 8)]
    assert prices[0] > prices[1] > prices[2]
    with pytest.raises(NotAvailable, match=r"no electrode F6, .* named ones; 89 of its 128 channels have no known"):
        systems.plan(row(64), paper.items(), paper, 0)
