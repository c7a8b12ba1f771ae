"""Alignment target of fine-tuning (Sec. 4.4): CLIP's image embeddings, class labels, or none.

    bench run --ablation supervision

The paper's "category labels as input" (97.2) can be read in two ways; the last two rows, without EEG, are both: the
name of the class as text for the unchanged generator, and a token of the class as the condition, which fine-tuning
learns (a linear map of the one-hot label in the encoder's place, without CLIP).
"""

from ablations.table2 import full, row1, row13
from bench import On, captions, replace

variants = [full, replace(full, name="label", align="label"), replace(row13, name="none"),  # 45.8, 86.7
            captions.Spec("label as input"),  # 97.2
            On(replace(row1, encoder="linear"), "label as class token", eeg="label")]
contrasts = [("Full", "label"), ("Full", "none"), ("label", "none")]
published = "dreamdiffusion_table2"
