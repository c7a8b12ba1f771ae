"""EEGLAB's sample recording as a data set, and whether its EEG tells where a square was shown (real_eeg.md)."""

import sys
from pathlib import Path

import mne
import numpy as np
import pandas as pd
from scipy.io import loadmat
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.data import own
from bench.data.recordings import cut_epochs
from bench.execute.build import build
from bench.experiment.datasets import find_pairs
from bench.experiment.stages import Items, Numerics, Readout, Trials
from bench.store.store import Store
from bench.train.items import load_items
from bench.train.readout import ALPHAS

file, folder, band = sys.argv[1], Path(sys.argv[2]), (0.5, 40.0)  # Hz
raw = mne.io.read_raw_eeglab(file, eog="auto", verbose="error")  # channels named EOG are no EEG
squares = [event for event in loadmat(file, simplify_cells=True)["EEG"]["event"] if event["type"] == "square"]
onset = np.array([round(event["latency"]) - 1 for event in squares])  # EEGLAB counts samples from 1
position = np.array([int(event["position"]) - 1 for event in squares])
images = np.zeros((2, 32, 32, 3), np.uint8)
images[0, 12:20, 4:12] = images[1, 12:20, 20:28] = 255  # a square on the left, on the right
n, n_times = len(squares), int(0.5 * raw.info["sfreq"]) // 4 * 4
own.prepare(folder / "squares", eeg=cut_epochs(raw, onset, band, raw.info["sfreq"], n_times), sfreq=raw.info["sfreq"],
            band=band, pictures=images, classes={"square at position 1": -1, "square at position 2": -1},
            trials={"subject": np.ones(n, int), "picture": position, "label": position, "position": np.arange(n),
                    "part_item": np.where(np.arange(n) < 0.75 * n, "train", "test")},  # the last quarter tests
            leaky="yes: each class has one image, which is in training and test")

store, trials = Store(folder / "store"), Trials(find_pairs("squares", folder), (1,), band)
parts = Items(trials, "train"), Items(trials, "test")
for stage in (trials, readout := Readout(*parts, "ridge", None, 0, Numerics())):
    build(stage, store)
verdicts = pd.read_csv(store.path(readout) / "verdicts.csv")

train, test = (load_items(items, store.path) for items in parts)
x, x_test = (loaded.eeg.reshape(len(loaded.eeg), -1).astype(float) for loaded in (train, test))
rng = np.random.default_rng(0)
labels = np.stack([train.label, *(rng.permutation(train.label) for _ in range(1000))], 1)  # the true ones come first
ridge = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, alpha_per_target=True)).fit(x, 2.0 * labels - 1)
predicted = ridge.predict(x_test) > 0
assert (predicted[:, 0] == verdicts["predicted"]).all()  # the same classifier as the suite's read-out
accuracy, *null = (predicted == test.label[:, None]).mean(0)
p = (1 + np.sum(np.array(null) >= accuracy)) / (1 + len(null))
print(f"{train.eeg.shape[1]} channels; {len(train.label)} training trials, {len(test.label)} test trials")
print(f"accuracy {accuracy:.3f}; with permuted training labels: mean {np.mean(null):.3f}, 95th percentile "
      f"{np.quantile(null, 0.95):.3f}; p = {p:.3f}")
