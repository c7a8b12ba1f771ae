"""Controls: Full with the EEG removed or exchanged, and systems without generator, EEG or training.

    bench run --ablation controls

About 16 minutes per seed at scale tiny on two cores. Rows marked eeg_free cannot know more about the stimulus than
chance. Rows that know the class or the stimulus are ceilings, not competitors.
"""

from ablations.table2 import full, row3
from bench import On, captions, replace, trivial

linear = replace(row3, encoder="linear")
slow = {"gap": (1.2, 1.3)}  # s between trials, so that no stimulus is in the interval before a stimulus


def high_pass(low):
    return On(row3, f"3 at {low:g} to 95 Hz", band=(low, 95.0))


variants = [
    full,
    On(full, "EEG shuffled", eeg="shuffled", eeg_free=True),
    On(full, "EEG shuffled within class", eeg="within_class"),
    On(full, "other trial of the class", eeg="other_trial"),
    On(full, "surrogate of the same spectrum", eeg="surrogate", eeg_free=True),
    On(full, "EEG zero", eeg="zero", eeg_free=True),
    On(full, "EEG mean", eeg="mean", eeg_free=True),
    On(full, "training pairs shuffled", eeg="pairs_shuffled", eeg_free=True),
    On(full, "interval before the stimulus", window="blank", world=slow, eeg_free=True),
    captions.Spec("no condition", classes="none", eeg_free=True),
    captions.Spec("time of recording only", classes="time", eeg_free=True),
    trivial.Spec("random training picture", source="random", eeg_free=True),
    trivial.Spec("mean picture of the class", source="class_mean"),
    trivial.Spec("stimulus through the VAE", source="vae"),
    captions.Spec("caption by ridge classifier", classes="ridge"),
    captions.Spec("caption by EEGNet", classes="eegnet"),
    On(linear, "oracle: label", eeg="label"),
    On(linear, "oracle: CLIP embedding", eeg="clip"),
    replace(linear, name="linear encoder"),
    row3,
    high_pass(1.0),
    high_pass(14.0),
]
contrasts = [
    ("Full", "EEG shuffled"), ("Full", "EEG shuffled within class"), ("Full", "caption by ridge classifier"),
    ("Full", "caption by EEGNet"), ("oracle: label", "Full"), ("oracle: CLIP embedding", "Full"),
    ("3", "linear encoder"), ("3", "3 at 1 to 95 Hz"), ("3", "3 at 14 to 95 Hz"),
]
