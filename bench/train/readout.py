"""A linear read-out of the class from the EEG itself: what is there to be found without any network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bench import results
from bench.items import load
from bench.runtime import Runtime
from bench.stages import Readout, Stage

ALPHAS = tuple(10.0**power for power in range(-1, 7))


def readout(stage: Readout, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes metrics.csv with readout_accuracy, the share of test trials whose class a ridge classifier tells.

    It sees all channels and times, standardised; its penalty is chosen by leave-one-out on the training trials.
    """
    train, test = (load(items, inputs(items.trials)) for items in (stage.train, stage.test))
    classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
    with threadpool_limits(1):
        classifier.fit(_flat(train.eeg), train.label)
        correct = classifier.predict(_flat(test.eeg)) == test.label
    runtime.progress(1, 1)
    classes = len(np.unique(train.label))
    rows = pd.DataFrame([("readout_accuracy", f"{classes} classes", correct.mean(), len(correct))],
                        columns=list(results.METRICS))
    (out / "metrics.csv").write_bytes(results.csv_bytes(rows))


def _flat(eeg: np.ndarray) -> np.ndarray:
    return eeg.reshape(len(eeg), -1).astype(np.float64)
