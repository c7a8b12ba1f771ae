"""How does the condition enter the U-Net: by cross-attention alone, as the text of DreamDiffusion says (Sec. 3.2), or
through the time step, too, as in MinD-Vis (Chen et al., CVPR 2023) and in DreamDiffusion's released code?

    bench run --ablation conditioning

With and without CLIP alignment (Eq. 3), which sees the cross-attention's condition alone.
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
