"""The projector tau from EEG tokens to the U-Net's condition: as here, as released, and plainly linear.

    bench run --ablation projector

Each with and without pre-training. The paper says "a projector" (Sec. 3.2). Full begins at the mean text tokens of the
shown classes' captions, so that its first images are those of the prior; the released code's projector and the plain
linear one begin at random, without a norm.
"""

from ablations.table2 import full, row3
from bench import replace

variants = [
    full,
    replace(full, name="tau as released", tau="released"),
    replace(full, name="tau linear", tau="linear"),
    row3,
    replace(row3, name="3 tau as released", tau="released"),
    replace(row3, name="3 tau linear", tau="linear"),
]
contrasts = [
    ("Full", "tau as released"), ("Full", "tau linear"), ("tau as released", "tau linear"),
    ("3", "3 tau as released"), ("3", "3 tau linear"),
    ("Full", "3"), ("tau as released", "3 tau as released"), ("tau linear", "3 tau linear"),
]
primary = [("Full", "tau as released"), ("Full", "tau linear")]
published = "dreamdiffusion_table2"
