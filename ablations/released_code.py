"""What differs between the paper's text and the code that was released, one difference at a time and all together:
masking 10 % instead of 75 %, half the encoder (its MLPs no wider than its tokens), the condition through the time step,
too, h on the encoder's own tokens, pictures cropped anew at every step, 500 epochs of fine-tuning instead of 300, PLMS
with 250 steps.

    bench run --ablation released_code

At scale tiny every encoder has such MLPs, so that this row is Full's, and PLMS cannot begin, so that its rows are left
out. At scale paper neither sampler is guided. The defects of the released code are not among its settings: none is
built here.
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
