"""Alignment target of fine-tuning (Sec. 4.4): CLIP's image embeddings, class labels, or none.

    bench run --ablation supervision

The last row has the labels as direct input, without EEG.
"""

from ablations.table2 import full, row13
from bench import captions, replace

variants = [full, replace(full, name="label", align="label"), replace(row13, name="none"),  # 45.8, 86.7
            captions.Spec("label as input")]  # 97.2
contrasts = [("Full", "label"), ("Full", "none"), ("label", "none")]
published = "dreamdiffusion_table2"
