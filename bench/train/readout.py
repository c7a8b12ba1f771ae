"""Classifies the EEG directly: how much class information it contains, for the captions and as a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from bench.data.prepared import read_trials
from bench.errors import BenchError
from bench.experiment.stages import Pretrain, Readout
from bench.runtime import Runtime
from bench.scoring import schema
from bench.train import Inputs
from bench.train.encoder import build
from bench.train.items import load_items
from bench.train.losses import descend, load_network, seeded
from models.classifiers import EEGNet

RATE = 250.0  # Hz; EEGNet's input stays below twice this (its authors: 128 Hz), which keeps bands up to 95 Hz
ALPHAS = tuple(10.0**power for power in range(-1, 7))
NEIGHBOURS = 5
EPOCHS, BATCH, LR = 25, 64, 4e-3  # EEGNet: AdamW, weight decay 0.01, half-cosine; chosen on validation of world 1


def readout(stage: Readout, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes verdicts.csv (item, label, predicted) of the test items, and metrics.csv with their accuracy.

    ridge     on all channels and times, standardised; penalty by leave-one-out on the training trials
    probe     ridge on all tokens of the encoder, pre-trained or as initialised, not fine-tuned
    eegnet    EEGNet after a fixed number of epochs
    time      the classes of the training trials nearest in time in the same recording; no EEG
    """
    train, test = (load_items(items, inputs) for items in (stage.train, stage.test))
    classes = train.shown
    if stage.classifier == "time":
        predicted = _classify_by_time(stage, inputs)
    elif stage.classifier == "eegnet":
        predicted = _classify_by_eegnet(stage, train.eeg, train.label, test.eeg, classes, runtime)
    elif stage.classifier in ("ridge", "probe"):
        x, x_test = train.eeg, test.eeg
        if stage.classifier == "probe":
            encoder = _load_encoder(stage, x.shape, inputs, runtime)
            with torch.inference_mode():
                x, x_test = (torch.cat([encoder(part.to(runtime.device)).cpu()
                                        for part in torch.from_numpy(eeg).split(200)]).numpy() for eeg in (x, x_test))
        x, x_test = (array.reshape(len(array), -1) for array in (x, x_test))
        with threadpool_limits(1):
            ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
            predicted = ridge.fit(x.astype(np.float64), train.label).predict(x_test.astype(np.float64))
    else:
        raise BenchError(f"unknown classifier {stage.classifier!r} of EEG; expected ridge, probe, eegnet or time")
    runtime.progress(1, 1)
    verdicts = pd.DataFrame({"item": test.item, "label": test.label, "predicted": predicted})
    verdicts.to_csv(out / "verdicts.csv", index=False, lineterminator="\n")
    accuracy, key = (predicted == test.label).mean(), f"{stage.classifier}, {classes} classes"
    rows = pd.DataFrame([("readout_accuracy", key, accuracy, len(predicted), "", "", 1)],
                        columns=list(schema.METRICS))
    (out / "metrics.csv").write_bytes(schema.csv_bytes(rows))


def _load_encoder(stage: Readout, shape: tuple[int, ...], inputs: Inputs, runtime: Runtime) -> nn.Module:
    """Returns the probed encoder for EEG [N, C, T], in evaluation mode; without pre-training as the seed draws it."""
    if isinstance(stage.encoder, Pretrain):
        return load_network(build(stage.encoder.encoder, *shape[1:], runtime),
                            inputs(stage.encoder) / "encoder.safetensors", runtime.device)
    assert stage.encoder is not None
    with seeded(stage.seed):
        return build(stage.encoder, *shape[1:], runtime).to(runtime.device).eval()


def _classify_by_time(stage: Readout, inputs: Inputs) -> np.ndarray:
    """The most frequent class [N] among the training trials nearest in time, for each test item, within its subject."""
    trials = read_trials(inputs(stage.train.trials))
    test = trials[trials["part"] == stage.test.part].sort_values("item")
    if (trials["position"] < 0).any():
        raise BenchError("classifier 'time' needs the order of the trials, which the data set does not state")
    predicted = np.empty(len(test), np.int64)
    for subject in test["subject"].unique():
        known = trials[(trials["part"] == stage.train.part) & (trials["subject"] == subject)]
        rows = (test["subject"] == subject).to_numpy()
        nearest = KNeighborsClassifier(NEIGHBOURS).fit(known[["position"]].to_numpy(), known["label"].to_numpy())
        predicted[rows] = nearest.predict(test.loc[rows, ["position"]].to_numpy())
    return predicted


def _classify_by_eegnet(stage: Readout, eeg: np.ndarray, label: np.ndarray, test: np.ndarray, classes: int,
                        runtime: Runtime) -> np.ndarray:
    with seeded(stage.seed):
        sfreq = stage.train.trials.world.sfreq
        if (factor := int(sfreq // RATE)) > 1:
            eeg, test, sfreq = resample_poly(eeg, 1, factor, -1), resample_poly(test, 1, factor, -1), sfreq / factor
        net = EEGNet(*eeg.shape[1:], sfreq, classes).to(runtime.device)
        signals, target = torch.from_numpy(eeg).to(runtime.device), torch.from_numpy(label).to(runtime.device)
        batch = min(BATCH, len(eeg))
        optimizer = torch.optim.AdamW(net.parameters(), LR, weight_decay=0.01, fused=True)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(eeg) // batch))
        generator = torch.Generator().manual_seed(stage.seed)
        net.train()
        for epoch in range(EPOCHS):
            order = torch.randperm(len(eeg), generator=generator)
            for rows in order[: len(eeg) // batch * batch].split(batch):
                descend(loss := F.cross_entropy(net(signals[rows]), target[rows]), optimizer)
                net.limit()
                decay.step()
            runtime.progress(epoch + 1, EPOCHS, loss=loss.item())
        net.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(test).to(runtime.device).split(200)
            return torch.cat([net(part).argmax(1) for part in parts]).cpu().numpy()
