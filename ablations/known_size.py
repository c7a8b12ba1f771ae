"""Known answer: three encoder sizes that can all fit the pairs, at 100, 400 and 1,600 pairs, in three worlds.

    bench run --ablation known_size --seeds 0,1,2 --results results/reference/instrument

Probes in CLIP space without pre-training; nothing is generated (docs/instrument.md). All sizes are trained until they
identify almost all training pairs. More pairs must be better at every size; the order of the sizes is measured.
"""

from bench import On
from bench.systems import known

WORLDS = (11, 12, 13)
SIZES, PAIRS = ("18.3M", "74M", "297M"), (100, 400, 1600)


def name(size, pairs, world):
    return f"{size} with {pairs} pairs in world {world}"


variants = [On(known.Spec("x", size=size, pairs=pairs, steps=3.0), name(size, pairs, world), world={"seed": world})
            for world in WORLDS for pairs in PAIRS for size in SIZES]
contrasts = [(name(size, 1600, world), name(size, 100, world)) for world in WORLDS for size in SIZES]
contrasts += [(name("297M", pairs, world), name("18.3M", pairs, world)) for world in WORLDS for pairs in PAIRS]
headline = "class_top1"
metrics = ("train_class_top1", "retrieval_10way")
