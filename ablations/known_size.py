"""Known answer: three encoder sizes that can all fit the pairs, at 100, 400 and 1,600 pairs, in three worlds.

    bench run --ablation known_size --seeds 0,1,2 --results results/reference/instrument

Probes in CLIP space without pre-training; nothing is generated (docs/instrument.md). All sizes are trained until they
identify almost all training pairs. More pairs must be better at every size; the order of the sizes is measured.
"""

from bench.experiment.worlds import contrasts_in, rows_in
from bench.systems import known

WORLDS = (11, 12, 13)
SIZES, PAIRS = ("18.3M", "74M", "297M"), (100, 400, 1600)
rows = [known.Spec(f"{size} with {pairs} pairs", size=size, pairs=pairs, steps=3.0)
        for pairs in PAIRS for size in SIZES]
variants = rows_in(WORLDS, rows)
contrasts = contrasts_in(WORLDS, [(f"{size} with 1600 pairs", f"{size} with 100 pairs") for size in SIZES])
contrasts += contrasts_in(WORLDS, [(f"297M with {pairs} pairs", f"18.3M with {pairs} pairs") for pairs in PAIRS])
headline = "class_top1"
metrics = ("train_class_top1", "retrieval_10way")
curves = {"training pairs": {size: tuple((pairs, f"{size} with {pairs} pairs") for pairs in PAIRS) for size in SIZES}}
