"""Masking and reconstruction of all channels together, or of each channel separately.

    bench run --ablation reconstruction

The paper has the former, without a comparison (Sec. 4.1). Per channel, a token is one channel's whole window, otherwise
four time steps of all channels; the numbers of values per token, tokens and parameters are equal. Each kind also
without pre-training, because tokens matter without it too.
"""

from ablations.table2 import full, row3
from bench import replace

variants = [
    full,
    replace(full, name="per channel", encoder="msm_channel"),
    row3,
    replace(row3, name="3 per channel", encoder="msm_channel"),
]
contrasts = [("Full", "per channel"), ("3", "3 per channel"), ("per channel", "3 per channel")]
