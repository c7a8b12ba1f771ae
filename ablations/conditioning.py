"""Conditioning of the U-Net: cross-attention alone, or also the time step.

    bench run --ablation conditioning

Cross-attention alone is DreamDiffusion's text (Sec. 3.2); MinD-Vis (Chen et al., CVPR 2023) and DreamDiffusion's
released code also use the time step. Rows with and without CLIP alignment (Eq. 3), which uses only the condition of the
cross-attention.
"""

from ablations.table2 import full, row13
from bench import replace

variants = [
    full,
    replace(full, name="and time step", time_condition=True),
    row13,
    replace(row13, name="13 and time step", time_condition=True),
]
contrasts = [("and time step", "Full"), ("13 and time step", "13"), ("Full", "13"),
             ("and time step", "13 and time step")]
