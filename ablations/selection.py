"""Gain from choosing a checkpoint or a sample by its score: Full at five points of its fine-tuning.

    bench run --ablation selection

The last checkpoint is the headline of every table. The table also shows the best on validation. The best on test and
the best of an item's samples only show the inflation that such a choice would cause.
"""

from ablations.table2 import full
from bench import On

MANY = 5
variants = [On(full, f"{which}/{MANY}{' on validation' * (part == 'val')}", part=part, checkpoint=(which, MANY))
            for part in ("test", "val") for which in range(1, MANY + 1)]
contrasts = [(f"{MANY}/{MANY}", f"{which}/{MANY}") for which in range(1, MANY)]
