"""A data set: made-up EEG of 12 electrodes for four classes of drawn pictures. Yours come from your own files."""

import numpy as np

from bench.data import own
from bench.data.pictures import CLASSES, draw_scenes, render

people, per_person, classes = (1, 2), 120, 4
rng = np.random.default_rng(0)
scenes = draw_scenes(per_person, classes, rng)
response = rng.standard_normal((classes, 12, 1)) * np.sin(np.arange(100) / 8)  # [classes, C, T]
order = [rng.permutation(per_person) for _ in people]  # in which each person saw the pictures
picture = np.concatenate(order)
part = np.repeat(["train", "val", "test"], [80, 20, 20])  # of each picture, whoever saw it

folder = own.prepare(
    ".bench-data/my_data",
    eeg=8 * rng.standard_normal((len(picture), 12, 100)) + response[scenes.label[picture]],  # [N, C, T], µV
    sfreq=200.0,
    band=(1.0, 40.0),
    pictures=render(scenes),  # [P, 32, 32, 3] uint8
    trials={
        "subject": np.repeat(people, per_person),
        "picture": picture,
        "label": scenes.label[picture],
        "position": np.tile(np.arange(per_person), len(people)),
        "block": np.tile(np.arange(per_person) // 20, len(people)),
        "part_item": part[picture],
    },
    classes={name: CLASSES.index(name) for name in CLASSES[:classes]},
    leaky="no: pictures came in random order, and each is in one part alone",
)
print(f"written to {folder}")
