"""Block design: Full with images in class blocks or interleaved, split by image or by block.

    bench run --ablation block_design

Each with and without drift between blocks, and with drift but without a response to the stimuli. With class blocks, a
split by image puts every test trial into a block that also trains: recognising the block then gives the class (Li et
al., TPAMI 2021). There are 60 blocks of 40 trials, six per class if blocked. The test part of "blocked / by block" is
ten blocks, one per class. Intervals assume independent images and are therefore too narrow there. No test against
permuted labels is made, because it would have to permute the labels of ten blocks.
"""

from ablations.table2 import full
from bench import On

DRIFT = 0.4  # standard deviation of a channel's log gain over blocks


def row(order, drift, split, signal=True):
    world = {"order": order, "blocks": 60, "block_drift": DRIFT if drift else 0.0} | ({} if signal else {"snr": 0.0})
    kind = {(True, True): "signal and drift", (True, False): "signal", (False, True): "drift alone"}[signal, drift]
    eeg_free = not signal and order == "interleaved"
    return On(full, f"{kind} / {order} / by {split}", split=split, world=world, eeg_free=eeg_free)


variants = [row(order, drift, split, signal) for signal, drift in ((True, False), (True, True), (False, True))
            for order in ("blocked", "interleaved") for split in ("item", "block")]
contrasts = [(f"{kind} / blocked / by item", f"{kind} / {cure}") for kind in ("signal and drift", "drift alone")
             for cure in ("blocked / by block", "interleaved / by item")]
