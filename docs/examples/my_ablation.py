"""Does my encoder, or my system, do better than row 3 of Table 2?

    bench run --ablation my_ablation.py
"""

from pathlib import Path

from ablations.table2 import row3  # no pre-training, CLIP
from bench import On, own, replace

HERE = Path(__file__).parent

system = own.Spec("my system", HERE / "my_system.py")
variants = [
    row3,
    replace(row3, name="my encoder", encoder=str(HERE / "my_encoder.py")),
    system,
    replace(system, name="my system from the third on", settings={"first": 2}),
    On(system, "my system on shuffled EEG", eeg="shuffled", eeg_free=True),
]
contrasts = [("my encoder", "3"), ("my system", "3"), ("my system", "my system on shuffled EEG")]
