"""What choosing a checkpoint by its score adds to that score: ATM with guided diffusion at five points of its encoder's
training (Li et al., NeurIPS 2024, took "the highest test accuracy in the evaluation process").

    bench run --ablation guided_selection

Protocol things (docs/data.md): validation and test show concepts of their own. The prior is trained anew on what each
state of the encoder makes. As in `selection`, the last checkpoint is the headline; the best on test is there to show
the inflation alone.
"""

from bench import On
from bench.systems import guided

MANY = 5
atm = guided.Spec("ATM")
variants = [On(atm, f"{which}/{MANY}{' on validation' * (part == 'val')}", protocol="things", part=part,
               checkpoint=(which, MANY)) for part in ("test", "val") for which in range(1, MANY + 1)]
contrasts = [(f"{MANY}/{MANY}", f"{which}/{MANY}") for which in range(1, MANY)]
