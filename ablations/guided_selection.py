"""Gain from choosing a checkpoint by its score: ATM at five points of its encoder's training.

    bench run --ablation guided_selection

Li et al. (NeurIPS 2024) reported "the highest test accuracy in the evaluation process". Protocol things (docs/data.md):
validation and test have different concepts. Each state of the encoder gets its own prior. As in `selection`, the last
checkpoint is the headline; the best on test only shows the inflation.
"""

from bench import On
from bench.systems import guided

MANY = 5
atm = guided.Spec("ATM")
variants = [On(atm, f"{which}/{MANY}{' on validation' * (part == 'val')}", protocol="things", part=part,
               checkpoint=(which, MANY)) for part in ("test", "val") for which in range(1, MANY + 1)]
contrasts = [(f"{MANY}/{MANY}", f"{which}/{MANY}") for which in range(1, MANY)]
