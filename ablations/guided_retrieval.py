"""Which test picture is the EEG's embedding nearest to, of concepts that were never trained on (Li et al., NeurIPS
2024, Table 8)? In-subject, and leave one subject out (LOSO), each beside its own shuffled EEG.

    bench run --ablation guided_retrieval

Protocol things (docs/data.md): single trials train, means over repetitions are tested, and every row is tested on the
same pictures, seen by the same person, subject 3. In-subject, this person's trials train; LOSO, those of subjects 1 and
2. Training has a fixed length: no checkpoint is chosen, by the left-out person's trials or any others. "ATM LOSO
leaked" has the leak of the code released until April 2024 (subject_seen), and is flagged. No picture is drawn, but by
DreamDiffusion's Full, whose h gives an embedding, too.
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
enigma = guided.Spec("ENIGMA", encoder="enigma", loss="direct")  # its one loss is for both
settings = {
    "in-subject": {"split": "concept", "subjects": (3,)},
    "LOSO": {"split": "subject", "subjects": (1, 2, 3)},
    "LOSO leaked": {"split": "subject_seen", "subjects": (1, 2, 3)},
}


def row(spec, setting, **changes):
    name = f"{spec.name} {setting}" + (" / EEG shuffled" if changes else "")
    return On(retrieval.Spec(spec, spec.name), name, protocol="things", **settings[setting], **changes)


asked = [(spec, setting) for setting in ("in-subject", "LOSO") for spec in (*specs, enigma)]
asked += [(full, "in-subject"), (specs[0], "LOSO leaked")]

variants = [row(*one) for one in asked] + [row(*one, eeg="shuffled", eeg_free=True) for one in asked]
contrasts = [(row(*one).name, row(*one, eeg="shuffled").name) for one in asked] + [
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
