"""Figure 5: images without pre-training, with E or A frozen, without CLIP, with the CLIP loss alone.

    bench run --ablation figure5
"""

from ablations.table2 import full, row1, row3, row12, row13, row14
from bench import replace

variants = [full, row3, row1, row14, row12, row13,
            replace(full, name="CLIP alone", sd_loss=False)]
contrasts = [("Full", "3"), ("13", "1"), ("13", "14"), ("Full", "12"), ("Full", "13"), ("Full", "CLIP alone")]
published = "dreamdiffusion_table2"
