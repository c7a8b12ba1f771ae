"""`bench score-embeddings`: measures how often embeddings of the EEG find the image that was shown."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import errors
from bench.arguments import numbers
from bench.commands.options import add_device, output_file
from bench.errors import BenchError
from bench.files import replace_file, writing
from bench.runtime import device
from bench.scoring import embeddings, schema
from bench.tables.literature import published_retrieval

ARRAYS = (".npy", ".npz")


def add_options(parser: argparse.ArgumentParser) -> None:
    embeddings = parser.add_argument_group("embeddings")
    embeddings.add_argument("eeg", metavar="EEG", help="an .npy file [N, D]: a row for each trial of the test EEG")
    embeddings.add_argument("--gallery", required=True, metavar="FILE|DIR", help="embeddings of the test images, an "
                            ".npy file [M, D], or a folder of these images")
    embeddings.add_argument("--trials", metavar="CSV", help="columns image and subject, a line for each row of EEG; "
                            "image: the row in the gallery, or the image's name (default: row i shows image i)")
    embeddings.add_argument("--space", default="", metavar="NAME", help="the network of the images in a folder: tiny, "
                            "clip, clip-h, dinov2-g or a folder of an open_clip model (default: tiny); of a file the "
                            "name of its space, which is printed")
    embeddings.add_argument("--weights", metavar="DIR", help="where clip or clip-h is (default: the libraries' caches)")
    add_device(embeddings)
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--k", default="1,5", metavar="1,5", help="right if among the k nearest (default: 1,5)")
    scoring.add_argument("--ways", default="2,4,10,50,200", metavar="2,10", help="sizes of the sets that are drawn "
                         "from the gallery (default: 2,4,10,50,200)")
    output = parser.add_argument_group("output")
    output.add_argument("--csv", metavar="FILE", help="write the table (default: none)")
    output.add_argument("--rows", metavar="FILE", help="write a line for each trial (default: none)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the accuracies and published ones, and writes the output files; returns the exit code."""
    files = {kind: output_file(name) for kind, name in (("csv", options.csv), ("rows", options.rows)) if name}
    tops, ways = numbers(options.k, "--k", 1), numbers(options.ways, "--ways", 2)
    eeg, folder = embeddings.read_embeddings(Path(options.eeg)), Path(options.gallery)
    identity = None
    if folder.suffix in ARRAYS and not folder.is_dir():
        gallery = embeddings.read_embeddings(folder)
        names, space = [str(row) for row in range(len(gallery))], options.space or "not named"
    else:
        from bench.setup.spaces import embed_images, open_space  # imports torch

        chosen = device(options.device)
        network = open_space(options.space or "tiny", Path(options.weights) if options.weights else None, chosen)
        gallery, identity, images = embed_images(folder, network, chosen)
        names, space = list(images.names), network.name
    if options.trials:
        trials = embeddings.read_trials(Path(options.trials), names, len(eeg))
    elif len(eeg) == len(gallery):
        trials = embeddings.Trials(np.arange(len(eeg)), np.full(len(eeg), ""))
    else:
        raise BenchError(f"{options.eeg} has {len(eeg)} rows and {options.gallery} {len(gallery)} images; expected one "
                         "row for each image, or --trials CSV with the image of each row")
    result = embeddings.score_embeddings(eeg, gallery, trials, tops, ways, identity)
    print(f"{result.text()}\n- space of the images: {space}")
    if published := published_retrieval(result.images):
        print(f"\n{published}")
    for kind, path in files.items():
        with writing(path):
            replace_file(path, schema.csv_bytes(result.summary if kind == "csv" else result.rows))
    return errors.OK
