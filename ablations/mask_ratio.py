"""Mask ratio of pre-training: Table 2, Full (0.75) and rows 5, 6, 7.

    bench run --ablation mask_ratio
"""

from ablations.table2 import full, row5, row6, row7

variants = [full, row5, row6, row7]
contrasts = [("Full", "5"), ("Full", "6"), ("Full", "7")]
published = "dreamdiffusion_table2"
curves = {"mask ratio": {"Full": ((0.25, "5"), (0.5, "6"), (0.75, "Full"), (0.85, "7"))}}
