"""Frequency band: Full on 5-95, 14-70 and 55-95 Hz.

    bench run --ablation band

These are the bands in which ImageNet-EEG is published. Only the paired EEG is filtered; the pre-training corpus keeps
the scale's band. Muscle activity is in gamma (55-95 Hz).
"""

from ablations.table2 import full
from bench import On

variants = [full, On(full, "14 to 70 Hz", band=(14.0, 70.0)), On(full, "55 to 95 Hz", band=(55.0, 95.0))]
contrasts = [("14 to 70 Hz", "Full"), ("55 to 95 Hz", "Full")]
