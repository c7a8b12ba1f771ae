"""What do the parts of ATM with guided diffusion bring (Li et al., NeurIPS 2024)? The diffusion prior, the path to the
VAE's latent and the caption path, on concepts that were never trained on.

    bench run --ablation guided_parts

Protocol things (docs/things.md): tested on means over repetitions, of other concepts than those of training. Beside it
the quirks of the released code, one by one, and DreamDiffusion's Full on the same items.
"""

from ablations.table2 import full
from bench import On, replace
from bench.systems import guided

atm = guided.Spec("ATM")


def on_things(spec, name, **changes):
    return On(spec, name, protocol="things", **changes)


variants = [
    on_things(atm, "ATM"),
    on_things(atm, "ATM / EEG shuffled", eeg="shuffled", eeg_free=True),
    on_things(replace(atm, prior=False), "without prior"),
    on_things(replace(atm, low_level=True), "with low-level path"),
    on_things(replace(atm, caption=True), "with captions"),
    on_things(replace(atm, low_level=True, caption=True), "with both"),
    on_things(replace(atm, clip_sample=False), "estimates not cut"),
    on_things(replace(atm, quirks="fixed"), "quirks fixed"),
    on_things(full, "Full on things"),
]
contrasts = [("ATM", v.name) for v in variants[1:]]
costs = True
literature = {"ATM": ("ATM-S",)}
