"""Masked pre-training, with and without CLIP, in a large and a small encoder: Table 2, six rows.

    bench run --ablation pretraining

Full and rows 1, 3, 4, 11, 13. Beside them stand linear probes of the pre-trained encoders and of the same encoders
untrained, so that what pre-training brings to the encoder has its zero.
"""

from ablations.table2 import full, row1, row3, row4, row11, row13

variants = [full, row3, row13, row1, row11, row4]
contrasts = [("Full", "3"), ("13", "1"), ("11", "4")]
published = "dreamdiffusion_table2"
