"""What is fine-tuning aligned to (Sec. 4.4)? CLIP's image embeddings, category labels in their place, or nothing; and
the labels as direct input, without EEG.

    bench run --ablation supervision
"""

from ablations.table2 import full, row13
from bench import captions, replace

variants = [full, replace(full, name="label", align="label"), replace(row13, name="none"),  # 45.8, 86.7
            captions.Spec("label as input")]  # 97.2
contrasts = [("Full", "label"), ("Full", "none"), ("label", "none")]
published = "dreamdiffusion_table2"
