"""Makes CLIP features of THINGS-EEG2's images and concepts once, in the layout that `features=FILE` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.data.features import CLASSES, ENDINGS, IMAGES, NAMES
from bench.data.file_corpus import check_name
from bench.data.things import Images
from bench.data.writing import reporting_full_disk
from bench.errors import ENVIRONMENT, BenchError
from bench.files import pending_path, sha256
from bench.images import as_images, decode, resize
from bench.runtime import ignore
from bench.setup import weights
from models import frozen, pins

PROMPT = "This picture is {}"  # of a concept, as in the code of ATM
BATCH = 64  # images at once
PINNED = {"clip_h": "ViT-H-14", "clip": "ViT-L-14"}  # the names of these models in the published files


def locate_clip(clip: str, folder: Path | None = None, name: str = "") -> tuple[Path, str]:
    """Returns the folder of an open_clip model, and the model's name in the files of features.

    clip: clip_h or clip, looked for in `folder` and in the libraries' caches; or a folder with open_clip_config.json
    and open_clip_model.safetensors. name: of a model in a folder, else the folder's. Raises BenchError for anything
    else, for missing weights, and for the name of a published model with other weights.
    """
    if clip in PINNED:
        if name:
            raise BenchError(f"--name {name}: the features of {clip} are named {PINNED[clip]}; leave out --name")
        return Path(weights.check([clip], folder)[clip].path), PINNED[clip]
    path = Path(clip).absolute()
    file = path / pins.PARTS["clip"].files[0].path
    if not file.is_file():
        raise BenchError(f"--clip {clip}: not {' or '.join(PINNED)}, and no folder with open_clip_config.json and "
                         f"{file.name}")
    name = name or path.name
    check_name(name)
    for part, published in PINNED.items():
        if name == published and sha256(file) != pins.PARTS[part].identity:
            raise BenchError(f"{file} is not the published {published}; give the model another name: --name NAME")
    return path, name


@torch.no_grad()
def make_features(images: Images, clip: Path, model: str, out: Path, device: str = "cpu",
                  progress: Callable[..., None] = ignore) -> Path:
    """Writes `<model>_features_train.pt` and the test file into `out`, with the images' names; returns the former.

    Images are resized as a whole to the side of the model, by Pillow's antialiased bicubic filter. Raises BenchError if
    a file is there already, if the weights do not fit (exit 3), and for an image that cannot be read.
    """
    files = {part: out / (model + ending) for part, ending in ENDINGS.items()}
    if present := [str(file) for file in files.values() if file.exists()]:
        raise BenchError(f"{', '.join(present)}: exists already; remove it, or write to another folder with --out DIR")
    try:
        net = frozen.load_clip(clip).to(device)
    except (frozen.MissingWeights, frozen.BadWeights) as error:
        raise BenchError(str(error), ENVIRONMENT) from error
    out.mkdir(parents=True, exist_ok=True)
    done, written = 0, {}
    for part, (paths, concepts) in images.parts().items():
        features, names = [], []
        for begin in range(0, len(paths), BATCH):
            batch = paths[begin : begin + BATCH]
            pixels = np.stack([resize(decode(path), (net.size, net.size)) for path in batch])
            features.append(net.embed_image(as_images(pixels, device)).cpu())
            done += len(batch)
            progress(done, len(images.files))
        for begin in range(0, len(concepts), BATCH):
            tokens = net.tokenize([PROMPT.format(name) for name in concepts[begin : begin + BATCH]])
            names.append(net.embed_text(tokens.to(device)).cpu())
        written[files[part]] = {IMAGES: torch.cat(features), CLASSES: torch.cat(names),
                                NAMES: [path.name for path in paths]}
    with reporting_full_disk(out):
        for file, content in written.items():
            torch.save(content, pending_path(file))
            pending_path(file).replace(file)
    return files["train"]
