"""Challenges: a test set whose labels and images an organiser keeps, and submissions that the organiser scores."""

from __future__ import annotations

import io
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data.writing import new_folder
from bench.errors import BenchError, count_of, join_names
from bench.files import hash_bytes, open_array
from bench.scoring import compare, gallery, schema
from bench.tables.submission import folder as files
from bench.tables.submission.export import exported_with

PUBLIC, SECRET = "public", "secret"
EEG, IMAGES, LABELS, KEPT = "eeg.npy", "images", "labels.csv", "secret.json"
SALT = 32  # random bytes


def make_protocol(images: Path, out: Path, name: str, labels: Path | None = None, eeg: Path | None = None,
                  samples: int = 1, judge: str = "tiny", is_hidden: bool = True) -> dict[str, Any]:
    """Writes a challenge: out/public, to be handed out, and out/secret, to be kept; returns the protocol.

    images: the test images, a folder or an array. Each becomes an item with a number in random order; file names and
    metadata are left out. eeg [N, ...]: rows in the order of the images' names, written in the items' order. labels: a
    CSV with columns name and label, the judge's class numbers. samples: images that a participant makes of an item.

    public  protocol.json: name, items, samples, judge, and the SHA-256 of secret.json, which has a random salt, so that
            labels cannot be found by trial and cannot be changed later; eeg.npy. Not hidden: also images and labels
    secret  images/NUMBER.png, labels.csv, secret.json

    Raises BenchError for images, labels and EEG that do not fit, and if `out` exists.
    """
    if out.exists():
        raise BenchError(f"{out} exists; choose another folder, or remove it")
    if samples < 1:
        raise BenchError(f"--samples {samples}: expected 1 or more")
    shown = gallery.open_gallery(images)
    label_of = gallery.read_label_rows(labels) if labels else {}
    if labels and (missing := [each for each in shown.names if each not in label_of]):
        raise BenchError(f"{labels} has no label for {count_of(len(missing), 'image')}: {join_names(missing)}")
    recorded = open_array(eeg, "EEG [N, ...], a row for each image") if eeg else None
    if recorded is not None and len(recorded) != len(shown.names):
        raise BenchError(f"{eeg} has {len(recorded)} rows; expected one for each of {len(shown.names)} images, in the "
                         "order of their names")
    order = list(range(len(shown.names)))
    secrets.SystemRandom().shuffle(order)
    number = [f"{item:0{len(str(len(order) - 1))}d}" for item in range(len(order))]
    secret = {f"{IMAGES}/{number[item]}.png": _png(shown.read(row)) for item, row in enumerate(order)}
    if labels:
        lines = [f"{number[item]},{label_of[shown.names[row]]}\n" for item, row in enumerate(order)]
        secret[LABELS] = ("name,label\n" + "".join(lines)).encode()
    known = {"salt": secrets.token_hex(SALT), "names": {number[item]: shown.names[row]
                                                        for item, row in enumerate(order)},
             "sha256": {path: hash_bytes(data) for path, data in secret.items()}}
    protocol = {"format": files.FORMAT, "name": name, "items": len(order), "samples": samples, "judge": judge,
                "is_hidden": is_hidden, "secret_sha256": files.hash_text(files.canonical_json(known))}
    public = {files.PROTOCOL: files.json_bytes(protocol)}
    if recorded is not None:
        stream = io.BytesIO()
        np.save(stream, np.asarray(recorded)[order])
        public[EEG] = stream.getvalue()
    both = {PUBLIC: public if is_hidden else public | secret,
            SECRET: secret | {KEPT: files.json_bytes(known), files.PROTOCOL: files.json_bytes(protocol)}}
    with new_folder(out) as folder:
        for part, contents in both.items():
            for path, data in contents.items():
                (folder / part / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / part / path).write_bytes(data)
    return protocol


def score_challenge(secret: Path, generated: Path, name: str, out: Path, device: str = "cpu") -> Path:
    """Scores a participant's images with the secret part of a challenge, and writes a submission; returns its folder.

    generated: images called by the items' numbers, NUMBER_0, NUMBER_1, ... for several samples. The submission holds
    labels and judged classes of all items, so it is the organiser's; a board shows means only. Raises BenchError if the
    secret part was changed, and for images that do not fit.
    """
    protocol = files.read_json(secret / files.PROTOCOL, ("name", "items", "samples", "judge", "secret_sha256"))
    known = files.read_json(secret / KEPT, ("salt", "sha256"))
    if files.hash_text(files.canonical_json(known)) != protocol["secret_sha256"]:
        raise BenchError(f"{secret / KEPT} is not the one that {files.PROTOCOL} names; restore it")
    if changed := [path for path, digest in known["sha256"].items()
                   if not (secret / path).is_file() or hash_bytes((secret / path).read_bytes()) != digest]:
        raise BenchError(f"{secret}: {join_names(changed)} is missing or was changed; restore it")
    labels = secret / LABELS
    made = gallery.open_gallery(generated)
    if len(made.names) != protocol["items"] * protocol["samples"]:
        raise BenchError(f"{generated} has {count_of(len(made.names), 'image')}; expected {protocol['samples']} of "
                         f"each of {protocol['items']} items")
    measured = compare.compare(generated, secret / IMAGES, labels if labels.is_file() else None, None,
                               protocol["judge"], device)
    about = dict(measured.about) | {"ablation": protocol["name"], "variant": name}
    summary = measured.summary.assign(schema=schema.SCHEMA, **about)[list(schema.COLUMNS)]
    key = {column: about[column] for column in schema.GROUP}
    files.write_folder(out, {
        files.ABOUT: files.json_bytes({"format": files.FORMAT, "kind": files.CHALLENGE, "name": name, "variant": name,
                                       "scale": about["scale"], "seeds": [0], "protocol": protocol["name"]}),
        files.RESULTS: files.csv_of(summary),
        files.ITEMS: schema.gzipped(files.csv_of(measured.rows.assign(**key)[[*key, *measured.rows]])),
        files.PROTOCOL: files.json_bytes(protocol), files.ENVIRONMENT: files.json_bytes(exported_with())})
    return out


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()
