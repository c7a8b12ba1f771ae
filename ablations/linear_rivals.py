"""Linear maps from EEG against each other and against a network: what does the image space add to a ridge regression?

    bench run --ablation linear_rivals

The linear baseline (Takagi and Nishimoto, CVPR 2023: text condition and latent, image-to-image), also with rescaled
predictions; Perceptogram (Fei et al., arXiv 2404.01250: image embedding and latent, IP-Adapter), without its parts; and
ATM, whose network feeds the same IP-Adapter. Each row is repeated on the EEG of other test items. `bench plan`
expects about six minutes for one seed at scale tiny on two cores, with null, ceiling and classifiers of the EEG.
"""

from bench import On, replace
from bench.systems import guided, linear, perceptogram

baseline = linear.Spec("linear baseline")
full = perceptogram.Spec("Perceptogram")
specs = [
    baseline,
    replace(baseline, name="linear baseline rescaled", restandardise=True),
    full,
    replace(full, name="without latent", latent=False),
    replace(full, name="predictions not rescaled", restandardise=False),
    guided.Spec("ATM"),
]
variants = [*specs, *(On(spec, f"{spec.name} / EEG shuffled", eeg="shuffled", eeg_free=True) for spec in specs)]
contrasts = [(spec.name, f"{spec.name} / EEG shuffled") for spec in specs] + [
    ("Perceptogram", spec.name) for spec in specs if spec is not full]
costs = True
