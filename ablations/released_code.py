"""Differences between the paper's text and the released code, one at a time and all together.

    bench run --ablation released_code

10 % masking instead of 75 %, encoder MLPs as wide as the tokens (half the encoder), condition through the time step, h
on the encoder's tokens, new crops at every step, 500 epochs of fine-tuning instead of 300, PLMS with 250 steps. At
scale tiny all encoders have such MLPs, so that row equals Full; PLMS cannot start, so its rows are left out. At scale
paper neither sampler uses guidance. Defects of the released code are not included.
"""

from ablations.table2 import full
from bench import On, replace

plms = {"sampler": "plms", "steps": 250, "guidance": 1.0}
mask, size, time, latent = ({"mask_ratio": 0.1}, {"size": "released"}, {"time_condition": True}, {"aligned": "latent"})

variants = [
    full,
    replace(full, name="mask 0.1", **mask),
    replace(full, name="MLP ratio 1", **size),
    replace(full, name="time condition", **time),
    replace(full, name="h on tokens", **latent),
    On(full, "crops drawn anew", views=0),
    On(full, "500 epochs", epochs=500),
    On(full, "PLMS 250", sampling=plms),
    On(replace(full, name="released", **mask, **size, **time, **latent), "all of them", epochs=500, views=0,
       sampling=plms),
]
contrasts = [("Full", v.name) for v in variants[1:]]
