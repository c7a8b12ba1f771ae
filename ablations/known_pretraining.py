"""Known answer: a corpus that must help, and one that cannot, in five worlds.

    bench run --ablation known_pretraining --seeds 0-2

Probes in CLIP space on 200 pairs; nothing is generated (docs/instrument.md). The corpus has the evoked responses of the
pairs at a higher signal-to-noise ratio, as averages of repeated trials have. An oracle start, which learns the codes of
the corpus's stimuli, must be better than none. Pre-training on the corpus with random phases must not be better than
none. Where masked pre-training lies is measured, not required. The worlds' seeds were not used to choose the settings.
"""

from bench import On, replace
from bench.systems import known

SEEDS = (11, 12, 13, 14, 15)  # of the worlds
none = known.Spec("none")
masked = replace(none, name="masked", start="masked")
starts = [
    none,
    replace(none, name="oracle", start="oracle"),
    masked,
    replace(masked, name="random phases", phases="independent"),
    replace(masked, name="shared random phases", phases="shared"),
]


def name(row, seed):
    return f"{row} in world {seed}"


variants = [On(spec, name(spec.name, seed), world={"seed": seed}) for seed in SEEDS for spec in starts]
contrasts = [(name(spec.name, seed), name("none", seed)) for seed in SEEDS for spec in starts[1:]]
primary = [pair for pair in contrasts if pair[0].startswith("oracle")]
headline = "class_top1"
metrics = ("train_class_top1", "retrieval_10way")
