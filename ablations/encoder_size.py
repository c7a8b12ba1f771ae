"""Size of the EEG encoder: Table 2, Full (297M) and rows 8 to 11.

    bench run --ablation encoder_size
"""

from ablations.table2 import full, row8, row9, row10, row11

variants = [full, row8, row9, row10, row11]
contrasts = [("Full", "8"), ("Full", "9"), ("Full", "10"), ("Full", "11")]
published = "dreamdiffusion_table2"
curves = {"encoder's size in the paper, million parameters": {
    "Full": ((18.3, "11"), (74, "10"), (162, "9"), (297, "Full"), (458, "8"))}}
