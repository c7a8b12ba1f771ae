"""CLIP alignment (Eq. 3), with and without pre-training: Table 2, Full and rows 1 to 4 and 13.

    bench run --ablation clip

The last row has class labels instead of CLIP (Sec. 4.4).
"""

from ablations.table2 import full, row1, row2, row3, row4, row13
from bench import replace

variants = [full, row13, row3, row1, row4, row2,
            replace(full, name="label", align="label")]  # 86.7
contrasts = [("Full", "13"), ("3", "1"), ("4", "2"), ("label", "Full")]
published = "dreamdiffusion_table2"
