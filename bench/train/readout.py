"""Classifiers of the EEG itself: what is there to be found without any picture, and what a caption could be made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.signal import resample_poly
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bench.errors import BenchError
from bench.experiment.stages import Pretrain, Readout, Stage
from bench.runtime import Runtime
from bench.scoring import schema
from bench.train.encoder import build
from bench.train.items import load
from models.classifiers import EEGNet

RATE = 250.0  # Hz; EEGNet sees no more than twice as much (its authors: 128 Hz), bands up to 95 Hz stay whole
ALPHAS = tuple(10.0**power for power in range(-1, 7))
NEIGHBOURS = 5
EPOCHS, BATCH, LR = 25, 64, 4e-3  # EEGNet: AdamW, weight decay 0.01, half-cosine; chosen on validation of world 1


def readout(stage: Readout, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes verdicts.csv (item, label, predicted) of the test items, and metrics.csv with their accuracy.

    "ridge": all channels and times, standardised; its penalty by leave-one-out on the training trials. "probe": the
    same on all tokens of an encoder as pre-training left it. "eegnet": the last of a fixed number of epochs. "time":
    the classes of the nearest training trials of the same recording in time, no EEG.
    """
    train, test = (load(items, inputs(items.trials)) for items in (stage.train, stage.test))
    classes = train.shown
    if stage.classifier == "time":
        predicted = _time(stage, inputs)
    elif stage.classifier == "eegnet":
        predicted = _eegnet(stage, train.eeg, train.label, test.eeg, classes, runtime)
    elif stage.classifier in ("ridge", "probe"):
        seen = [(_tokens(stage.encoder, items.eeg, inputs, runtime) if stage.classifier == "probe" else items.eeg)
                .reshape(len(items.item), -1) for items in (train, test)]
        with threadpool_limits(1):
            ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
            predicted = ridge.fit(seen[0].astype(np.float64), train.label).predict(seen[1].astype(np.float64))
    else:
        raise BenchError(f"no classifier {stage.classifier!r} of EEG; there are: ridge, probe, eegnet, time")
    runtime.progress(1, 1)
    verdicts = pd.DataFrame({"item": test.item, "label": test.label, "predicted": predicted})
    verdicts.to_csv(out / "verdicts.csv", index=False, lineterminator="\n")
    accuracy, how = (predicted == test.label).mean(), f"{stage.classifier}, {classes} classes"
    rows = pd.DataFrame([("readout_accuracy", how, accuracy, len(predicted), "", "", 1)],
                        columns=list(schema.METRICS))
    (out / "metrics.csv").write_bytes(schema.csv_bytes(rows))


@torch.inference_mode()
def _tokens(stage: Pretrain, eeg: np.ndarray, inputs: Callable[[Stage], Path], runtime: Runtime) -> np.ndarray:
    """Tokens [N, L, width] of the encoder as pre-training left it."""
    encoder = build(stage.encoder, *eeg.shape[1:], runtime)
    encoder.load_state_dict(load_file(inputs(stage) / "encoder.safetensors"))
    encoder.eval().to(runtime.device)
    return torch.cat([encoder(part.to(runtime.device)).cpu() for part in torch.from_numpy(eeg).split(200)]
                     ).numpy()


def _time(stage: Readout, inputs: Callable[[Stage], Path]) -> np.ndarray:
    """The most frequent class among the nearest training trials in time, for each test item [N], by subject."""
    trials = pd.read_csv(inputs(stage.train.trials) / "trials.csv")
    test = trials[trials["part"] == stage.test.part].sort_values("item")
    if (trials["position"] < 0).any():
        raise BenchError("the data set does not say when its trials were recorded: no classifier 'time'")
    predicted = np.empty(len(test), np.int64)
    for subject in test["subject"].unique():
        known = trials[(trials["part"] == stage.train.part) & (trials["subject"] == subject)]
        own = (test["subject"] == subject).to_numpy()
        nearest = KNeighborsClassifier(NEIGHBOURS).fit(known[["position"]].to_numpy(), known["label"].to_numpy())
        predicted[own] = nearest.predict(test.loc[own, ["position"]].to_numpy())
    return predicted


def _eegnet(stage: Readout, eeg: np.ndarray, label: np.ndarray, test: np.ndarray, classes: int,
            runtime: Runtime) -> np.ndarray:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        sfreq = stage.train.trials.world.sfreq
        if (factor := int(sfreq // RATE)) > 1:
            eeg, test, sfreq = resample_poly(eeg, 1, factor, -1), resample_poly(test, 1, factor, -1), sfreq / factor
        net = EEGNet(*eeg.shape[1:], sfreq, classes).to(runtime.device)
        signals, target = torch.from_numpy(eeg).to(runtime.device), torch.from_numpy(label).to(runtime.device)
        batch = min(BATCH, len(eeg))
        steps = EPOCHS * (len(eeg) // batch)
        optimizer = torch.optim.AdamW(net.parameters(), LR, weight_decay=0.01)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        generator = torch.Generator().manual_seed(stage.seed)
        net.train()
        for epoch in range(EPOCHS):
            order = torch.randperm(len(eeg), generator=generator)
            for rows in order[: len(eeg) // batch * batch].split(batch):
                loss = F.cross_entropy(net(signals[rows]), target[rows])
                loss.backward()
                optimizer.step()
                net.limit()
                optimizer.zero_grad()
                decay.step()
            runtime.progress(epoch + 1, EPOCHS, loss=loss.item())
        net.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(test).to(runtime.device).split(200)
            return torch.cat([net(part).argmax(1) for part in parts]).cpu().numpy()
