"""EEG encoders in row 3 of Table 2 (no pre-training, CLIP), all newly initialised.

    bench run --ablation encoders

One linear map, and models of braindecode up to their final layer. About 25 minutes per seed at scale tiny on two cores.
Requires braindecode (the extra `braindecode`). All rows have the schedule of row 3; a column shows the parameter
counts. LaBraM, CBraMod and EEGPT are reduced: at their authors' sizes they take 10 to 40 minutes each on a core.
EEGConformer and ATCNet pool over less time than by default, which is meant for trials of four seconds. On validation
(world 1, seed 0) neither learns under this schedule, with default pools or with these, nor does BIOT. LaBraM needs
electrode positions, which ImageNet-EEG does not have.
"""

from ablations.table2 import row3
from bench import replace


def braindecode(name, model):
    return replace(row3, name=name, encoder=f"braindecode:{model}")


variants = [
    row3,
    replace(row3, name="linear", encoder="linear"),
    braindecode("EEGNet", "EEGNet"),
    braindecode("ShallowFBCSPNet", "ShallowFBCSPNet"),
    braindecode("EEGConformer", "EEGConformer(pool_time_length=16, pool_time_stride=8)"),
    braindecode("ATCNet", "ATCNet(conv_block_pool_size_1=4, conv_block_pool_size_2=4)"),
    braindecode("BIOT", "BIOT"),
    braindecode("LUNA", "LUNA(sfreq=256, n_times=160)"),  # whole patches of 40
    braindecode("LaBraM 2 of 12 layers", "InterpolatedLaBraM(num_layers=2)"),
    braindecode("CBraMod 2 of 12 layers", "CBraMod(sfreq=200, n_times=200, n_layer=2)"),  # whole patches of 200
    braindecode("EEGPT 2 of 8 layers of 128", "EEGPT(depth=2, embed_dim=128)"),
]
contrasts = [("3", v.name) for v in variants[1:]]
