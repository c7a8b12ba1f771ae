"""Doses of masked pre-training: windows of the corpus, its signal-to-noise ratio, and pairs, in three worlds.

    bench run --ablation dose --seeds 0,1,2 --results results/reference/instrument

Probes in CLIP space in the world of known_pretraining; nothing is generated (docs/instrument.md). All pre-trainings
have the same number of steps. Unless a row says otherwise: 12,000 windows at a ratio of 4, and 200 pairs.
"""

from bench import replace
from bench.experiment.worlds import contrasts_in, rows_in
from bench.systems import known

WORLDS = (11, 12, 13)
none = known.Spec("none")
masked = replace(none, name="masked", start="masked")
rows = [
    none,
    masked,
    *(replace(masked, name=f"{n} windows", windows=n) for n in (600, 3_000, 36_000, 100_000)),
    *(replace(masked, name=f"ratio {snr:g}", snr=snr) for snr in (0.25, 0.5, 1.0, 2.0)),
    *(replace(spec, name=f"{spec.name} with {n} pairs", pairs=n) for n in (50, 100, 400, 1600)
      for spec in (none, masked)),
]


def baseline(row):
    return row.replace("masked", "none") if "pairs" in row else "none"


variants = rows_in(WORLDS, rows)
contrasts = contrasts_in(WORLDS, [(row.name, baseline(row.name)) for row in rows if row.start == "masked"])
headline = "class_top1"
metrics = ("train_class_top1", "retrieval_10way")
curves = {
    "windows of the corpus": {"masked": (
        (0, "none"), (600, "600 windows"), (3_000, "3000 windows"), (12_000, "masked"), (36_000, "36000 windows"),
        (100_000, "100000 windows"))},
    "signal-to-noise ratio of the corpus": {"masked": (
        *((snr, f"ratio {snr:g}") for snr in (0.25, 0.5, 1.0, 2.0)), (4.0, "masked"))},
    "training pairs": {start: tuple((pairs, start if pairs == none.pairs else f"{start} with {pairs} pairs")
                                    for pairs in (50, 100, 200, 400, 1600)) for start in ("masked", "none")},
}
