"""What is masked in pre-training: time, channels, or patches of both.

    bench run --ablation masking

DreamDiffusion masks time (Sec. 4.1); masking channels corresponds to MinD-Vis (Chen et al., CVPR 2023), which masks
patches of voxels. A token is four time steps of all channels, one channel's whole window, or a group of channels over
some time steps; the numbers of tokens, values per token and parameters are equal, and 75 % are masked. Each kind also
without pre-training, because tokens matter without masking too. Reconstruction errors of different kinds are not
comparable: neighbouring channels, and copies of a channel in recordings with fewer channels, predict a channel better
than other times predict a stretch of time.
"""

from ablations import reconstruction
from bench import replace

full, per_channel, row3, row3_per_channel = reconstruction.variants
both = replace(full, name="grid", encoder="msm_grid")
row3_both = replace(row3, name="3 grid", encoder="msm_grid")

variants = [full, per_channel, both, row3, row3_per_channel, row3_both]
contrasts = [("Full", "per channel"), ("Full", "grid"), ("grid", "per channel"), ("3", "3 per channel"),
             ("3", "3 grid"), ("Full", "3"), ("per channel", "3 per channel"), ("grid", "3 grid")]
