"""A system: ridge regression from EEG to a picture's CLIP embedding, and the training pictures nearest to that."""

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from bench.images import as_images


def embedded(pictures, run):
    """Unit vectors [P, D'] of pictures [P, H, W, 3]."""
    clip, found = run.clip(), []
    with torch.inference_mode(), run.autocast():
        for part in np.array_split(pictures, 1 + len(pictures) // 50):
            found.append(clip.embed_image(as_images(part, run.device)).float().cpu())
    return torch.cat(found)


def fit(train, run):
    """What training leaves behind; rows that differ in what they are tested on share it."""
    eeg, seen = train.eeg.reshape(len(train.eeg), -1), embedded(train.pictures[:], run)
    ridge = RidgeCV([1e2, 1e3, 1e4, 1e5, 1e6], alpha_per_target=True).fit(eeg, seen.numpy())
    return {"weight": ridge.coef_, "bias": ridge.intercept_}


def pictures(train, test, run, first=0):
    """uint8 [N, samples, H, W, 3], and the predicted embeddings [N, D']. first: 0 begins with the nearest one."""
    predicted = torch.from_numpy(test.eeg).flatten(1) @ run.fitted["weight"].T + run.fitted["bias"]
    once = np.unique(train.picture, return_index=True)[1]  # a trial of each picture
    alike = predicted @ embedded(train.pictures[once], run).T
    near = alike.argsort(dim=1, descending=True, stable=True)[:, first:first + run.samples]
    return train.pictures[once[near.numpy()]], predicted
