"""Image retrieval by real EEG without a GPU: encoders on one subject of THINGS-EEG2 (docs/laptop.md).

    bench run --ablation laptop --scale laptop --seeds 0,1,2,3,4

Each encoder is trained on single trials towards published CLIP features of the images, with ATM's loss for retrieval
(ENIGMA: its own), and tested on means over repetitions, of concepts that are not trained on; chance is 1 in 200. Each
row is repeated on shuffled EEG. Training has a fixed length; no checkpoint is chosen. The published numbers are means
over ten subjects, of longer trainings, at the best test accuracy in training. Without Li et al.'s MLP, whose hidden
maps of 64 x 1024 take too long on two cores.
"""

from bench import On, retrieval
from bench.systems import guided

specs = [
    guided.Spec("ATM", loss="retrieval"),
    guided.Spec("NICE", encoder="nice", loss="retrieval"),
    guided.Spec("EEGNet", encoder="eegnet", loss="retrieval"),
    guided.Spec("ENIGMA", encoder="enigma", loss="direct"),  # ENIGMA has one loss
]


def row(spec, **changes):
    name = spec.name + (" / EEG shuffled" if changes else "")
    return On(retrieval.Spec(spec, spec.name), name, protocol="things", **changes)


variants = [row(spec) for spec in specs] + [row(spec, eeg="shuffled", eeg_free=True) for spec in specs]
contrasts = [(spec.name, f"{spec.name} / EEG shuffled") for spec in specs] + [
    ("ATM", spec.name) for spec in specs[1:]]
headline = "retrieval_top1"
metrics = ("retrieval_top5", "retrieval_2way", "retrieval_4way", "retrieval_10way")
costs = True
within = "THINGS-EEG2, within subject"
literature = {
    "ATM": (("ATM-S", within), "all parts (ATM-S)"),
    "NICE": (("NICE", within), ("NICE", "THINGS-EEG2"), "NICE, as quoted"),
    "EEGNet": (("EEGNetV4", within),),
}
