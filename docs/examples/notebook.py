# %% [markdown]
# # An ablation from a notebook
#
# Does CLIP alignment help? Two rows of Table 2 at scale `micro`, which takes a minute on two cores and only checks the
# software. Open this file in VS Code or with jupytext, or run all cells with `python < notebook.py`.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import bench
from bench.data.pictures import draw_scenes, render

folder = Path(os.environ.get("BENCH_NOTEBOOK") or tempfile.mkdtemp())  # where everything is written
rows = {"scale": "micro", "seeds": [0], "variants": ["Full", "13"], "store": folder / "store"}

# %% [markdown]
# ## What would be built, and what is stored

# %%
planned = bench.plan("clip", **rows)
planned.stages

# %% [markdown]
# ## Build, score and tabulate

# %%
table = bench.run("clip", **rows, results=folder / "results")
table.rows

# %%
table.contrasts

# %% [markdown]
# Every recorded number is in `scores`: FID of each row, for example.

# %%
fid = table.scores.query("metric == 'fid'")[["variant", "items", "value"]]
fid

# %% [markdown]
# A later session reads the same table from its CSV.

# %%
later = bench.table("clip", scale="micro", results=folder / "results")
print(later)

# %% [markdown]
# ## Score your own images
#
# Reference images and, in place of a model's output, the same images with noise.

# %%
rng = np.random.default_rng(0)
reference = render(draw_scenes(64, 10, rng))  # [N, 32, 32, 3] uint8
noisy = np.clip(reference + rng.normal(0, 40, reference.shape), 0, 255).astype(np.uint8)
np.save(folder / "reference.npy", reference)
np.save(folder / "generated.npy", noisy)
comparison = bench.score(folder / "generated.npy", folder / "reference.npy", metrics=["ssim", "psnr", "fid"])
comparison.summary
