"""Class-dependent artefacts: Full without and with them, and on artefacts alone.

    bench run --ablation artefacts

The artefacts are eye movements and muscle bursts. No split removes this confound, because an artefact depends on the
class and not on the time. The rows show how much of a result it could explain.
"""

from ablations.table2 import full
from bench import On

variants = [full, On(full, "with artefacts", world={"artefacts": 0.5}),
            On(full, "artefacts alone", world={"artefacts": 0.5, "snr": 0.0}),
            On(full, "neither", world={"snr": 0.0}, eeg_free=True)]
contrasts = [("with artefacts", "Full"), ("artefacts alone", "neither")]
