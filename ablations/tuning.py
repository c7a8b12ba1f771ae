"""Three learning rates for each trained system of `systems`, in worlds 1 and 2: all have the same tuning budget.

    bench run --ablation tuning

Each system's own rates, half and twice of them, in all its trainings, tested on validation images. A system's setting
is the factor with the highest mean top-1 over the two worlds. The other systems of `systems` have no rate to choose: a
ridge regression chooses its penalty by itself, and EEGNet's rate was chosen on the validation images of world 1.
"""

from ablations.systems import trained
from bench import On, replace
from bench.experiment.worlds import contrasts_in, rows_in

WORLDS = (1, 2)  # not the world of the other tables
FACTORS = (0.5, 2.0)
others = [(spec, On(spec, f"{spec.name} at rates x {factor:g}", rates=factor))
          for spec in trained for factor in FACTORS]
rows = [*trained, *(row for _, row in others)]

variants = [replace(row, part="val") for row in rows_in(WORLDS, rows)]
contrasts = contrasts_in(WORLDS, [(row.name, spec.name) for spec, row in others])
