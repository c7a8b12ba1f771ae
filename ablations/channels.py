"""Electrodes: Full on fewer of them, with and without pre-training.

    bench run --ablation channels

Each smaller set is a part of the larger ones: 64, 32, 24, 16 and 8 standard electrodes, chosen by name, or 16, 8 and 4
in the tiny world (docs/data.md, Fewer electrodes). The encoder and its pre-training see these electrodes alone. Full
and "no pre-training" have all electrodes of the data set: 128 in ImageNet-EEG, 32 in the tiny world.
"""

from ablations.table2 import full, row3
from bench import On, replace

SIZES = (64, 32, 24, 16, 8, 4)
without = replace(row3, name="no pre-training")


def name(channels, pretrained=True):
    return f"{channels} channels" + ("" if pretrained else " without pre-training")


variants = [full, *(On(full, name(n), channels=n) for n in SIZES),
            without, *(On(row3, name(n, False), channels=n) for n in SIZES)]
primary = [("Full", name(n)) for n in SIZES]
contrasts = [*primary, *(("no pre-training", name(n, False)) for n in SIZES), ("Full", "no pre-training"),
             *((name(n), name(n, False)) for n in SIZES)]
