"""Table 1, extended: all systems on the same training trials and test images, scored by the same code.

    bench run --ablation systems

DreamDiffusion's Full; MinD-Vis's ideas on EEG (masked channels, condition also through the time step, a tuned LayerNorm
before cross-attention, no CLIP); Brain2Image with both decoders; ThoughtViz, also with its released code's leak; ATM
with guided diffusion; the linear baseline of Takagi and Nishimoto; a classifier's prediction as a caption (as in GWIT);
and systems without EEG. Each system that uses the EEG is repeated on the EEG of other test items. About 20 minutes per
seed at scale tiny on two cores.
"""

from ablations.table2 import full
from bench import On, captions, replace, trivial
from bench.systems import brain2image, guided, linear, thoughtviz

mind_vis = replace(full, name="MinD-Vis on EEG", encoder="msm_channel", align=None, tune="E+A+norm2",
                   time_condition=True)
trained = [
    full,
    mind_vis,
    brain2image.Spec("Brain2Image GAN", decoder="gan"),
    brain2image.Spec("Brain2Image VAE", decoder="vae"),
    thoughtviz.Spec("ThoughtViz"),
    guided.Spec("ATM"),
]
with_eeg = [
    *trained,
    linear.Spec("linear baseline"),
    captions.Spec("caption by ridge classifier", classes="ridge"),
    captions.Spec("caption by EEGNet", classes="eegnet"),
]
leak = thoughtviz.Spec("ThoughtViz with its leak", leak=True)
without_eeg = [
    captions.Spec("prior alone", classes="none", eeg_free=True),
    trivial.Spec("random training picture", source="random", eeg_free=True),
    trivial.Spec("mean picture of the class", source="class_mean"),
]
shuffled = [On(spec, f"{spec.name} / EEG shuffled", eeg="shuffled", eeg_free=True) for spec in with_eeg]

variants = [*with_eeg, leak, *without_eeg, *shuffled]
contrasts = [(spec.name, f"{spec.name} / EEG shuffled") for spec in with_eeg] + [
    ("Full", spec.name) for spec in with_eeg[1:]] + [("ThoughtViz with its leak", "ThoughtViz")]
costs = True
literature = {
    "Full": ("Ours", "Full"),
    "MinD-Vis on EEG": ("MinD-Vis",),
    "Brain2Image GAN": ("Brain2Image", "Brain2Image, GAN"),
    "ThoughtViz": ("ThoughtViz",),
    "ATM": ("ATM-S",),
    "caption by EEGNet": ("GWIT",),
}
