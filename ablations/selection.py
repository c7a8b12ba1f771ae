"""What choosing a checkpoint or a sample by its score adds to that score: Full at five points of its fine-tuning.

    bench run --ablation selection

The last checkpoint is the headline of every table. The best on validation stands beside it; the best on test, and the
best of an item's samples, show the inflation that such a choice would bring, and nothing else.
"""

from ablations.table2 import full
from bench import On

MANY = 5
variants = [On(full, f"{which}/{MANY}{' on validation' * (part == 'val')}", part=part, checkpoint=(which, MANY))
            for part in ("test", "val") for which in range(1, MANY + 1)]
contrasts = [(f"{MANY}/{MANY}", f"{which}/{MANY}") for which in range(1, MANY)]
