"""Which EEG encoder before the diffusion prior (Li et al., NeurIPS 2024, Table 1)? ATM, NICE, EEGNet and an MLP with
its pipeline, and ENIGMA's direct path (arXiv 2602.10361), each beside its own shuffled EEG.

    bench run --ablation guided_encoders

Protocol things (docs/things.md): tested on means over repetitions, of other concepts than those of training. Table 1's
metrics stand in the CSV; their stand-ins at scale tiny have names of their own (docs/metrics.md).
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
costs = True
literature = {"ATM": ("ATM-S",), "NICE": ("NICE encoder, ATM's pipeline",), "EEGNet": ("EEGNetV4, ATM's pipeline",)}
