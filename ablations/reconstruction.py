"""Are all channels masked and reconstructed as a whole, or each by itself? The paper has the former, without a
comparison (Sec. 4.1).

    bench run --ablation reconstruction

Per channel a token is one channel's whole window, else four time steps of all channels: as many numbers in a token,
as many tokens, as many parameters. Each kind with and without pre-training, since the tokens matter without it, too.
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
