"""Image retrieval by EEG, on concepts that are not trained on (Li et al., NeurIPS 2024, Table 8).

    bench run --ablation guided_retrieval

Within subject and leave one subject out (LOSO), each also on shuffled EEG. Protocol things (docs/data.md): single
trials train, means over repetitions are tested. All rows are tested on the same images, seen by subject 3.
Within-subject rows train on this subject, LOSO rows on all others: subjects 1 and 2 at scale tiny, nine at scale paper.
Training has a fixed length; no checkpoint is chosen. "ATM LOSO leaked" has the leak of the code released until April
2024 (subject_seen) and is flagged. No images are generated, except by DreamDiffusion's Full, whose h also gives an
embedding.
"""

from ablations.table2 import full
from bench import On, retrieval
from bench.systems import guided

specs = [
    guided.Spec("ATM", loss="retrieval"),
    guided.Spec("NICE", encoder="nice", loss="retrieval"),
    guided.Spec("EEGNet", encoder="eegnet", loss="retrieval"),
    guided.Spec("MLP", encoder="mlp", loss="retrieval"),
]
enigma = guided.Spec("ENIGMA", encoder="enigma", loss="direct")  # ENIGMA has one loss
settings = {
    "in-subject": {"split": "concept", "subjects": (3,)},
    "LOSO": {"split": "subject", "subjects": (3,)},  # left out
    "LOSO leaked": {"split": "subject_seen", "subjects": (3,)},
}


def row(spec, setting, **changes):
    name = f"{spec.name} {setting}" + (" / EEG shuffled" if changes else "")
    return On(retrieval.Spec(spec, spec.name), name, protocol="things", **settings[setting], **changes)


pairs = [(spec, setting) for setting in ("in-subject", "LOSO") for spec in (*specs, enigma)]
pairs += [(full, "in-subject"), (specs[0], "LOSO leaked")]

variants = [row(*pair) for pair in pairs] + [row(*pair, eeg="shuffled", eeg_free=True) for pair in pairs]
contrasts = [(row(*pair).name, row(*pair, eeg="shuffled").name) for pair in pairs] + [
    (f"ATM {setting}", f"{spec.name} {setting}") for setting in ("in-subject", "LOSO")
    for spec in (*specs[1:], enigma)] + [
    ("ATM in-subject", "Full in-subject"), ("ATM in-subject", "ATM LOSO"), ("ATM LOSO leaked", "ATM LOSO")]
headline = "retrieval_top1"
metrics = ("retrieval_top5", "retrieval_2way", "retrieval_4way", "retrieval_10way")
costs = True
within, without = "THINGS-EEG2, within subject", "THINGS-EEG2, leave one subject out"
literature = {
    "ATM in-subject": (("ATM-S", within), "all parts (ATM-S)"),
    "NICE in-subject": (("NICE", within), ("NICE", "THINGS-EEG2"), "NICE, as quoted"),
    "EEGNet in-subject": (("EEGNetV4", within),),
    "MLP in-subject": (("MLP", within), ("MLP", "THINGS-EEG2")),
    "ATM LOSO": (("ATM-S", without),),
    "NICE LOSO": (("NICE", without),),
}
