"""What fine-tuning trains: encoder E, cross-attention A, projection tau. Table 2, rows 12 to 14.

    bench run --ablation freezing

Further rows are combinations that the paper leaves out.
"""

from ablations.table2 import full, row12, row13, row14
from bench import replace

variants = [
    full, row12, row13, row14,
    replace(full, name="A", tune="A"),  # row 14 with CLIP
    replace(full, name="tau", tune="tau"),  # neither E nor A
    replace(row13, name="E-clip", tune="E"),  # row 12 without CLIP
    replace(full, name="A+norm2", tune="E+A+norm2"),  # the LayerNorm before each cross-attention counts as A
    replace(row14, name="A-tau", tune="A-tau"),  # row 14 where tau counts as E
]
contrasts = [
    ("Full", "12"), ("13", "14"), ("Full", "A"), ("12", "tau"), ("A", "tau"), ("13", "E-clip"),
    ("A+norm2", "Full"), ("14", "A-tau"),
]
published = "dreamdiffusion_table2"
