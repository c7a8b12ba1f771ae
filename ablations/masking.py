"""What should be masked: stretches of time, as DreamDiffusion has it (Sec. 4.1), channels, as MinD-Vis (Chen et al.,
CVPR 2023) masks patches of voxels, that is of space, or patches of both?

    bench run --ablation masking

A token is four time steps of all channels; one channel's whole window; or a group of channels over a stretch of time.
There are as many tokens, of as many numbers, and as many parameters; 75 % are masked. Each kind also without
pre-training, since tokens matter without masking, too. Masked errors do not compare: a channel's neighbours, and its
copies where a corpus has fewer channels, tell more of it than a stretch of time does of another.
"""

from ablations import reconstruction
from bench import replace

full, per_channel, row3, row3_per_channel = reconstruction.variants
both = replace(full, name="grid", encoder="msm_grid")
row3_both = replace(row3, name="3 grid", encoder="msm_grid")

variants = [full, per_channel, both, row3, row3_per_channel, row3_both]
contrasts = [("Full", "per channel"), ("Full", "grid"), ("grid", "per channel"), ("3", "3 per channel"),
             ("3", "3 grid"), ("Full", "3"), ("per channel", "3 per channel"), ("grid", "3 grid")]
