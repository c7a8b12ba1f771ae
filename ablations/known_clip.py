"""Known answer: embeddings that say more than the class, and embeddings that say only that, in five worlds.

    bench run --ablation known_clip --seeds 0,1,2 --results results/reference/instrument

Probes without pre-training on 1,600 pairs, tested by 10-way retrieval; nothing is generated (docs/instrument.md). The
responses depend on class, colour, position and size. Alignment to the image's CLIP embedding must be better than
training on labels. Alignment to the mean embedding of the class, which says no more than the label, must not be.
"""

from bench import replace
from bench.experiment.worlds import contrasts_in, rows_in
from bench.systems import known

WORLDS = (11, 12, 13, 14, 15)
labels = known.Spec("labels", world="clip", pairs=1600, steps=2.0, target="label")
rows = [
    labels,
    replace(labels, name="image embeddings", target="image"),
    replace(labels, name="class embeddings", target="class"),
]

variants = rows_in(WORLDS, rows)
contrasts = contrasts_in(WORLDS, [(row.name, "labels") for row in rows[1:]])
headline = "retrieval_10way"
metrics = ("class_top1", "train_class_top1")
