"""Parts of ATM with guided diffusion (Li et al., NeurIPS 2024), on concepts that are not trained on.

    bench run --ablation guided_parts

The diffusion prior, the low-level path to the VAE's latent, and the caption path. Protocol things (docs/data.md): tests
use means over repetitions. Other rows: the prior's estimates not clipped, its samples scaled to unit length for the
adapter (the released code hands them on as they are), the quirks of the released encoder fixed, and DreamDiffusion's
Full on the same items. Each row also has a null, the EEG of
other test items. The headline metric and the columns are those of guided_encoders.
"""

from ablations import guided_encoders
from ablations.table2 import full
from bench import On, replace
from bench.systems import guided

atm = guided.Spec("ATM")
specs = [
    atm,
    replace(atm, name="without prior", prior=False),
    replace(atm, name="with low-level path", low_level=True),
    replace(atm, name="with captions", caption=True),
    replace(atm, name="with both", low_level=True, caption=True),
    replace(atm, name="estimates not cut", clip_sample=False),
    replace(atm, name="samples at unit length", normalised=True),
    replace(atm, name="quirks fixed", quirks="fixed"),
    replace(full, name="Full on things"),
]

variants = [On(spec, spec.name, protocol="things") for spec in specs] + [
    On(spec, f"{spec.name} / EEG shuffled", protocol="things", eeg="shuffled", eeg_free=True) for spec in specs]
contrasts = [(spec.name, f"{spec.name} / EEG shuffled") for spec in specs] + [
    ("ATM", spec.name) for spec in specs[1:]]
headline, metrics, costs = guided_encoders.headline, guided_encoders.metrics, True
literature = {"ATM": guided_encoders.literature["ATM"]}
