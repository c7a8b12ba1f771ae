"""EEG encoders for the diffusion prior (Li et al., NeurIPS 2024, Table 1), each also on shuffled EEG.

    bench run --ablation guided_encoders

ATM, NICE, EEGNet and MLP in ATM's pipeline, and ENIGMA's direct path (arXiv 2602.10361). Protocol things
(docs/data.md): tests use means over repetitions, of concepts that are not trained on. Top-1 is the judge's class of the
concept, at scale tiny its shape. At scale paper the judge does not know these concepts, and the headline is two-way
identification by CLIP. Table 1's metrics have columns, and at scale tiny their stand-ins have columns under their own
names (docs/metrics.md).
"""

from bench import On
from bench.systems import guided

specs = [
    guided.Spec("ATM"),
    guided.Spec("NICE", encoder="nice"),
    guided.Spec("EEGNet", encoder="eegnet"),
    guided.Spec("MLP", encoder="mlp"),
    guided.Spec("ENIGMA", encoder="enigma", loss="direct", prior=False),
]

variants = [On(spec, spec.name, protocol="things") for spec in specs] + [
    On(spec, f"{spec.name} / EEG shuffled", protocol="things", eeg="shuffled", eeg_free=True) for spec in specs]
contrasts = [(spec.name, f"{spec.name} / EEG shuffled") for spec in specs] + [
    ("ATM", spec.name) for spec in specs[1:]]
headline = ("top1_label", "two_way_clip")
metrics = ("pixcorr", "ssim", "two_way_alexnet2", "two_way_alexnet5", "two_way_inception", "two_way_clip",
           "correlation_swav", "two_way_judge_layer2", "two_way_judge_layer4", "two_way_judge_features",
           "two_way_clip_tiny", "correlation_judge")
costs = True
literature = {
    "ATM": (("ATM-S", "THINGS-EEG2, subject 8"),),
    "NICE": ("NICE encoder, ATM's pipeline",),
    "EEGNet": ("EEGNetV4, ATM's pipeline",),
}
