"""What a user gives to own.prepare: pandas objects, text that means a missing value, and arrays that are no EEG."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import inputs, own, prepared
from bench.errors import BenchError

RNG = np.random.default_rng(0)
N = 12
EEG = RNG.standard_normal((N, 5, 16)) * 10
PICTURES = RNG.integers(0, 256, (N, 16, 16, 3), np.uint8)
CLASSES = {"cat": 0, "dog": 1}
FRAME = pd.DataFrame({"subject": 1, "picture": np.arange(N), "label": np.arange(N) % 2,
                      "part_item": np.repeat(["train", "val", "test"], 4)})
ODD = FRAME.set_axis(RNG.permutation(N) + 40, axis=0)  # as after a shuffle or a selection


def prepare(folder, **changes):
    """Prepares `folder`/mine, and returns its trials as text."""
    given = {"eeg": EEG, "sfreq": 100.0, "band": (1, 40), "pictures": PICTURES, "trials": FRAME, "classes": CLASSES,
             "leaky": "no: images came in random order"} | changes
    own.prepare(folder / "mine", **given)
    return pd.read_csv(folder / "mine/trials.csv", dtype=str, keep_default_na=False)


def refused(folder, *parts, **changes):
    with pytest.raises(BenchError) as caught:
        prepare(folder, **changes)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert list(folder.iterdir()) == []
    return message


def test_columns_of_a_shuffled_table_are_not_paired_by_index(tmp_path):
    shuffled = FRAME.sample(frac=1, random_state=3)
    message = refused(tmp_path, "trials['subject'] and trials['picture'] have different indices, first in row 0 (0 and "
                      f"{shuffled.index[0]})", ".to_numpy() or .reset_index(drop=True)", trials={
                          "subject": FRAME["subject"], "picture": shuffled["picture"], "label": FRAME["label"],
                          "part_item": FRAME["part_item"]})
    assert "in the order given, never by index" in message


def test_values_are_taken_in_the_order_given_whatever_the_index(tmp_path):
    expected = prepare(tmp_path, trials={name: FRAME[name].to_numpy() for name in FRAME})
    for number, trials in enumerate([
            ODD, {name: ODD[name] for name in ODD}, {name: pd.Index(ODD[name]) for name in ODD},
            {"picture": ODD["picture"], "subject": [1] * N, "label": ODD["label"].to_numpy(), "part_item":
             pd.Categorical(ODD["part_item"])},
            ODD.convert_dtypes(), ODD.astype(object)]):
        (tmp_path / str(number)).mkdir()
        pd.testing.assert_frame_equal(prepare(tmp_path / str(number), trials=trials)[list(expected)], expected)


def test_eeg_of_a_column_of_a_table_keeps_its_order(tmp_path):
    prepare(tmp_path, eeg=pd.Series(list(EEG), ODD.index), trials=ODD)
    assert np.array_equal(np.load(tmp_path / "mine/eeg_1-40.npy"), EEG.astype(np.float16))
    (tmp_path / "other").mkdir()
    refused(tmp_path / "other", "eeg and trials have different indices", eeg=pd.Series(list(EEG)), trials=ODD)


def test_classes_and_electrodes_may_be_pandas_objects(tmp_path):
    prepare(tmp_path, classes=pd.Series(CLASSES), ch_names=pd.Index(["Fz", "Cz", "Pz", "O1", "O2"]))
    classes = prepared.read_classes(tmp_path / "mine")
    assert classes["name"].tolist() == ["cat", "dog"]
    assert classes["judge"].tolist() == [0, 1]
    assert '"ch_names": [\n  "Fz"' in (tmp_path / "mine/manifest.json").read_text()


@settings(deadline=None, derandomize=True, database=None, max_examples=25)
@given(st.lists(st.integers(-5, 5), min_size=N, max_size=N), st.permutations(range(N)), st.booleans())
def test_any_index_gives_the_values_in_order_or_an_error(index, order, is_same):
    picture = np.array(order)
    subject = pd.Series(np.ones(N, int), index)
    other = pd.Series(picture, index if is_same else range(N))
    trials = {"subject": subject, "picture": other, "label": FRAME["label"].to_numpy()}
    if is_same or index == list(range(N)):
        assert inputs.trial_table(trials, EEG)["picture"].tolist() == list(order)
    else:
        with pytest.raises(BenchError, match="different indices"):
            inputs.trial_table(trials, EEG)


@pytest.mark.parametrize("value", ["n/a", "N/A", " n/a ", "", "nan", "<NA>", None, np.nan, pd.NA, pd.NaT])
@pytest.mark.parametrize("column", ["session", "exemplar"])
def test_a_missing_session_is_refused_at_preparation(tmp_path, column, value):
    values = ["a"] * 3 + [value] + ["b"] * (N - 4)
    shown = repr(value) if isinstance(value, str) else ""  # pandas may turn None into NaN
    refused(tmp_path, f"trial 3 has the {column} {shown}", "which means a missing value, as 1 of 12 trials do; leave",
            trials=FRAME.assign(**{column: pd.Series(values, dtype=object)}))


def test_names_that_pandas_takes_for_missing_stay_text_from_the_arrays_to_the_captions(tmp_path):
    from bench.execute.build import build
    from bench.experiment import datasets
    from bench.experiment.stages import Items, Trials
    from bench.store.store import Store
    from bench.train.items import load

    names = ["null", "None", "NA", "nan", "007", "1e3"]
    table = prepare(tmp_path, classes={name: number for number, name in enumerate(names)}, trials=FRAME.assign(
        label=np.arange(N) % 6, session=["NA", "01", "null"] * 4, exemplar=["None", "1"] * 6, note=[None, 1.5] * 6))
    assert table["session"].tolist()[:3] == ["NA", "01", "null"]
    assert table["note"].tolist()[:2] == ["", "1.5"]
    world, store = datasets.find_pairs("mine", tmp_path), Store(tmp_path / "store")
    stage = Trials(world, (1,), (1.0, 40.0))
    folder = build(stage, store)
    assert load(Items(stage), folder).names == tuple(names)
    rows = prepared.read_trials(folder)
    assert rows["session"].tolist() == ["NA", "01", "null"] * 4
    assert rows["exemplar"].tolist() == ["None", "1"] * 6
    assert rows["item"].tolist() == list(range(N))


def test_a_table_of_a_data_set_that_was_changed_by_hand_names_the_line(tmp_path):
    prepare(tmp_path)
    path = tmp_path / "mine/trials.csv"
    path.write_text(path.read_text().replace("\n3,1,3,", "\n3,n/a,3,"))
    with pytest.raises(BenchError, match=r"trials\.csv, line 5: subject is 'n/a'; expected a number"):
        prepared.read_trials(tmp_path / "mine")
    path.unlink()
    with pytest.raises(BenchError, match=r"trials\.csv: not a readable table"):
        prepared.read_trials(tmp_path / "mine")


@pytest.mark.parametrize(("changes", "said"), [
    # Classes
    ({"classes": ["cat", "dog"]}, "classes are a list; expected a dict with the judge's number of each name, such as"),
    ({"classes": {}}, "classes are empty"),
    ({"classes": {"cat": 0, "n/a": 1}}, "a class has the name 'n/a', which means a missing value"),
    ({"classes": {"cat": 0, " ": 1}}, "a class has the name ' ', which means a missing value"),
    ({"classes": {"cat": 0, "dog\n": 1}}, r"the class name 'dog\n' has spaces around it or a line break"),
    ({"classes": {"cat": 0, "a\nb": 1}}, r"the class name 'a\nb' has spaces around it or a line break"),
    ({"classes": {0: 0, 1: 1}}, "the class name 0 is a int; expected text"),
    ({"classes": {"cat": True, "dog": 1}}, "class 'cat' has the judge's number True; expected a whole number"),
    ({"classes": pd.Series([0, 1], ["cat", "cat"])}, "classes name 'cat' twice"),
    # EEG
    ({"eeg": (window for window in EEG)}, "eeg is a generator; expected an array [trials, channels, time steps]"),
    ({"eeg": {0: EEG}}, "eeg is a dict; expected an array"),
    ({"eeg": pd.DataFrame(EEG[0])}, "eeg is a DataFrame; expected an array"),
    ({"eeg": [*EEG[:9], EEG[9, :, :12], *EEG[10:]]}, "the EEG of trial 9 is [5, 12]; expected [5, 16], as that of"),
    ({"eeg": [*EEG[:9], EEG[9].astype(str), *EEG[10:]]}, "the EEG of trial 9 is <U"),
    ({"eeg": EEG.astype(complex)}, "the EEG of a trial is complex128 [5, 16]; expected numbers"),
    ({"eeg": RNG.standard_normal((N, 600, 64))}, "600 channels of 64 time steps, but no EEG has more than 512 "
     "channels; expected [trials, channels, time steps]: eeg.transpose(0, 2, 1)"),
    ({"eeg": EEG.transpose(0, 2, 1), "ch_names": list("ABCDE")}, "5 different ch_names for 16 channels; expected one "
     "for each; as many as time steps: expected [trials, channels, time steps]: eeg.transpose(0, 2, 1)"),
    # Channels
    ({"ch_names": "Fz Cz"}, "ch_names are a str; expected a list of names"),
    ({"ch_names": list(range(5))}, "the channel name 0 is a int; expected text"),
    ({"ch_names": ["Fz", "Cz", "Pz", "O1", "O1 "]}, "the channel name 'O1 ' has spaces around it"),
    ({"ch_names": ["Fz", "FZ", "Pz", "O1", "O2"]}, "4 different ch_names for 5 channels: 'Fz' is repeated"),
    # Rates
    ({"sfreq": "fast"}, "sfreq=fast: expected two ascending numbers in Hz, and a rate above 0"),
    ({"sfreq": np.nan}, "expected two ascending numbers in Hz, and a rate above 0"),
    ({"band": None}, "band=None"),
    ({"band": (1, 40, 80)}, "band=(1, 40, 80)"),
    ({"leaky": None}, "leaky of the split 'item' is None; expected 'no: ' or 'yes: '"),
    # Images
    ({"pictures": PICTURES / 255}, "pictures are float64 [12, 16, 16, 3]; expected uint8 [images, side, side, 3]; "
     "for values from 0 to 1: (255 * x.clip(0, 1)).round().astype(np.uint8)"),
    ({"pictures": PICTURES.transpose(0, 3, 1, 2)}, "side, side, 3]: images.transpose(0, 2, 3, 1)"),
    ({"pictures": list(PICTURES)}, "pictures are list; expected an array"),
    # Trials
    ({"trials": [1, 2]}, "trials are a list; expected a dict of columns, or a DataFrame"),
    ({"trials": pd.concat([FRAME, FRAME[["label"]]], axis=1)}, "the trials have two columns 'label'"),
    ({"trials": FRAME.to_dict()}, "the trials' column subject is a dict; expected values in the order of the trials"),
    ({"trials": FRAME.assign(label=FRAME["label"] == 1)}, "the trials' column label holds bool; expected whole numbers "
     "from 0 on, in the order of `classes`; trial 0 has"),
    ({"trials": FRAME.assign(label=FRAME["label"] * 1.0)}, "the trials' column label holds float64; expected whole "),
    ({"trials": FRAME.assign(subject="sub-01")}, "expected whole numbers: number the people, as pandas.factorize does; "
     "trial 0 has 'sub-01'"),
    ({"trials": FRAME.assign(block=[*range(11), None])}, "column block holds float64; expected whole numbers; trial 0"),
    ({"trials": FRAME.assign(position=[*range(11), np.nan])}, "expected whole numbers; trial 11 has"),
    ({"trials": FRAME.assign(position=[*range(11), np.inf])}, "column position has infinite values"),
    ({"trials": FRAME.assign(item=np.arange(N) - 1)}, "trial 0 has item -1; expected 0 to 9223372036854775807"),
    ({"trials": FRAME.assign(item=np.arange(N, dtype=np.uint64) + 2**63)}, "trial 0 has item 9223372036854775808; "),
    ({"trials": FRAME.assign(part_item=FRAME["part_item"].str.title())}, "part_item has 'Test'; expected train, val"),
    ({"trials": FRAME.assign(part_item=[*["train"] * 6, *["test"] * 5, None])}, "expected train, val, test or ''"),
    ({"trials": FRAME.assign(**{"a\nb": 1})}, r"the trials have a column 'a\nb'; expected one line of text"),
])
def test_what_is_no_data_set_gets_one_clear_line(tmp_path, changes, said):
    refused(tmp_path, said, **changes)


def test_more_channels_than_time_steps_are_warned_of_unless_the_electrodes_are_named(tmp_path):
    turned = EEG.transpose(0, 2, 1)[:, :, :4]
    with pytest.warns(UserWarning, match=r"is taken as 16 channels of 4 time steps; if it is the other way round"):
        prepare(tmp_path, eeg=turned)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(tmp_path, eeg=turned, ch_names=[f"E{number}" for number in range(16)])


def test_classes_that_the_judge_cannot_tell_apart_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="classes 'cat', 'dog' have the same judge's number 3"):
        prepare(tmp_path, classes={"cat": 3, "dog": 3})
