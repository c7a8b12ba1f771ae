"""The authors' released generation checkpoint, beside the suite's own trainings.

    bench import dreamdiffusion FILE
    bench run --ablation released_checkpoint --scale paper

The release links one trained checkpoint (September 2025). It was trained on the part "train" of the split file `single`
and its best epoch was selected on the part "test", so that its row is on this split and optimistic. Beside it: Full,
also on this split; and everything as released but trained here (the last row of `released_code`). The checkpoint is
drawn with PLMS of 250 steps. Without an imported checkpoint its row is left out, and a line says what to import.
"""

from ablations.released_code import every_other, released
from ablations.table2 import full
from bench import On
from bench.systems.released import Spec

checkpoint = Spec()
variants = [
    full,
    On(full, "Full on split single", split="single"),
    On(released, "trained as released", **every_other),
    On(checkpoint, checkpoint.name, split="single", scaling="released"),
]
contrasts = [("Full on split single", checkpoint.name), ("trained as released", checkpoint.name)]
