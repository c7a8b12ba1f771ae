"""The primary contrasts of Table 2 in five worlds: a verdict about worlds like these, not about one.

    bench run --ablation worlds --seeds 0,1

Each world has its own people, electrodes, responses and images, and its own corpus for pre-training; all have the same
settings. The world is the sample: "over worlds" tests the five differences, each a mean over seeds.
"""

from bench import FULL, replace
from bench.experiment.worlds import contrasts_in, rows_in

WORLDS = (21, 22, 23, 24, 25)  # seeds that were not used to choose any setting
rows = [
    FULL,
    replace(FULL, name="3", mask_ratio=None),
    replace(FULL, name="13", align=None),
    replace(FULL, name="5", mask_ratio=0.25),
    replace(FULL, name="11", size="18.3M"),
]

variants = rows_in(WORLDS, rows)
contrasts = contrasts_in(WORLDS, [(FULL.name, row.name) for row in rows[1:]])
