"""Known answer: a corpus that must help, and one that cannot, in five worlds.

    bench run --ablation known_pretraining --seeds 0,1,2 --results results/reference/instrument

Probes in CLIP space on 200 pairs; nothing is generated (docs/instrument.md). The corpus has the evoked responses of the
pairs at a higher signal-to-noise ratio, as averages of repeated trials have. An oracle start, which learns the codes of
the corpus's stimuli, must be better than none. Pre-training on noise of the corpus's mean spectrum must not be better
than none. Where masked pre-training lies is measured, also with random phases. About 10 minutes of one core per seed.
"""

from bench import replace
from bench.experiment.worlds import contrasts_in, rows_in
from bench.systems import known

WORLDS = (11, 12, 13, 14, 15)  # seeds that were not used to choose the settings
none = known.Spec("none")
masked = replace(none, name="masked", start="masked")
starts = [
    none,
    replace(none, name="oracle", start="oracle"),
    masked,
    replace(masked, name="noise", phases="noise"),
    replace(masked, name="independent phases", phases="independent"),
    replace(masked, name="shared phases", phases="shared"),
]

variants = rows_in(WORLDS, starts)
contrasts = contrasts_in(WORLDS, [(row.name, "none") for row in starts[1:]])
headline = "class_top1"
metrics = ("train_class_top1", "retrieval_10way")
