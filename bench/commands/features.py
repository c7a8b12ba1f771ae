"""`bench data features`: CLIP features of THINGS-EEG2's images, made once by a model of open_clip."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import errors
from bench.commands.options import show_progress
from bench.data import things
from bench.errors import BenchError
from bench.setup.request import DATA

DESCRIPTION = """\
Makes CLIP features of the images of THINGS-EEG2 and of the names of their concepts, by any open_clip model that is on
this machine, and writes them as FEATURES in: bench data prepare things_eeg2 --set features=FEATURES"""


def add_parser(actions: Any) -> None:
    """Adds `features` to the actions of `bench data`."""
    parser = actions.add_parser("features", help="make CLIP features of the images of THINGS-EEG2",
                                description=DESCRIPTION)
    parser.add_argument("images", metavar="IMAGES", help="folder with training_images and test_images")
    parser.add_argument("--from", dest="source", metavar="DIR", help="folder of image_metadata.npy (default: IMAGES)")
    model = parser.add_argument_group("model")
    model.add_argument("--clip", default="clip_h", metavar="NAME|FOLDER", help="clip_h (ViT-H-14), clip (ViT-L-14), "
                       "or a folder with open_clip_config.json and open_clip_model.safetensors (default: clip_h)")
    model.add_argument("--name", default="", help="name of the model in a folder (default: the folder's)")
    model.add_argument("--weights", metavar="DIR", help="where clip_h or clip is (default: the libraries' caches)")
    parser.add_argument("--out", default=str(DATA / "features"), metavar="DIR",
                        help=f"folder to write to (default: {DATA / 'features'})")
    model.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Makes the features and prints where they are; returns the exit code. Raises BenchError for bad input."""
    images = Path(options.images)
    if not images.is_dir():
        raise BenchError(f"{images}: expected a folder with training_images and test_images")
    listed = things.find_images(Path(options.source or images), images)
    from bench.setup import image_features  # imports torch

    folder = Path(options.weights) if options.weights else None
    clip, model = image_features.locate_clip(options.clip, folder, options.name)
    with show_progress(console) as progress:
        file = image_features.make_features(listed, clip, model, Path(options.out), options.device, progress)
    print(f"{file}: features of {len(listed.files):,} images and {len(listed.concepts):,} concepts by {model}, and "
          f"the test file beside it; next: bench data prepare things_eeg2 --from DIR --set pictures={images} "
          f"--set features={file}")
    return errors.OK
