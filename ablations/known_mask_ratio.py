"""Known answer: mask ratios that must differ, in five worlds.

    bench run --ablation known_mask_ratio --seeds 0,1,2 --results results/reference/instrument

Probes in CLIP space on 200 pairs; nothing is generated (docs/instrument.md). Late responses are a function of early
ones, over a slow background. At ratio 0.25 the masked tokens have visible neighbours, and interpolation predicts most
of them; at 0.75 it does not. Both ratios must be better than an untrained encoder, and differ from each other.
"""

from bench import replace
from bench.experiment.worlds import contrasts_in, rows_in
from bench.systems import known

WORLDS = (11, 12, 13, 14, 15)
none = known.Spec("none", world="mask_ratio", patch=4, snr=1.0)
rows = [
    none,
    replace(none, name="mask 0.25", start="masked", mask=0.25),
    replace(none, name="mask 0.75", start="masked"),
]

variants = rows_in(WORLDS, rows)
contrasts = contrasts_in(WORLDS, [
    ("mask 0.25", "none"), ("mask 0.75", "none"), ("mask 0.75", "mask 0.25")])
headline = "class_top1"
metrics = ("train_class_top1", "retrieval_10way")
