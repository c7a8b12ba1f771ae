"""The confound of block designs: Full on recordings with pictures in class blocks or interleaved, with and without
drift from block to block, split by picture or by block; and with drift but no response to the stimuli at all.

    bench run --ablation block_design

Under class blocks a split by picture puts every test trial into a block that also trains; whoever recognises the
block then knows the class (Li et al., TPAMI 2021). Sixty blocks of 40 trials, six of each class when blocked. Of
these, ten make the test part of "blocked / by block", one of each class: intervals take its pictures for independent,
and are too narrow; nor is it tested against permuted labels, which would have to be those of ten blocks.
"""

from ablations.table2 import full
from bench import On

DRIFT = 0.4  # log gain of a channel in a block, standard deviation


def row(order, drift, split, signal=True):
    world = {"order": order, "blocks": 60, "block_drift": DRIFT if drift else 0.0} | ({} if signal else {"snr": 0.0})
    kind = {(True, True): "signal and drift", (True, False): "signal", (False, True): "drift alone"}[signal, drift]
    free = not signal and order == "interleaved"
    return On(full, f"{kind} / {order} / by {split}", split=split, world=world, eeg_free=free)


variants = [row(order, drift, split, signal) for signal, drift in ((True, False), (True, True), (False, True))
            for order in ("blocked", "interleaved") for split in ("item", "block")]
contrasts = [(f"{kind} / blocked / by item", f"{kind} / {cure}") for kind in ("signal and drift", "drift alone")
             for cure in ("blocked / by block", "interleaved / by item")]
