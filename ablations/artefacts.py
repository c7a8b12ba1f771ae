"""Eye movements and muscle bursts that go with the class: Full with and without them, and with them alone.

    bench run --ablation artefacts

No split cures this: the artefact belongs to the class, not to the time. What is left is to see how much of a number
it could carry.
"""

from ablations.table2 import full
from bench import On

variants = [full, On(full, "with artefacts", world={"artefacts": 0.5}),
            On(full, "artefacts alone", world={"artefacts": 0.5, "snr": 0.0}),
            On(full, "neither", world={"snr": 0.0}, eeg_free=True)]
contrasts = [("with artefacts", "Full"), ("artefacts alone", "neither")]
