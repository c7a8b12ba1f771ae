"""The readers of the sweep (tests/corruption.py): for each, a small intact set of files, and how it is read."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from corruption import Read, Reader, digest, given
from formats import write_alljoined, write_imagenet_eeg, write_things
from PIL import Image

from bench.data import (
    alljoined,
    catalogue,
    corpora,
    eeg_files,
    file_corpus,
    imagenet_eeg,
    own,
    prepared,
    shard_writer,
    shards,
    things,
)
from bench.data.recordings import as_raw
from bench.errors import BenchError
from bench.execute.worker import read_request, write_request
from bench.experiment import datasets, scale
from bench.experiment.key import Stage
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Trials
from bench.scoring import audit, gallery
from bench.setup.rehearsal.files import WNIDS
from bench.store import gc
from bench.store.store import Store, find_damage
from bench.tables import named, results

SIDE = 24  # pixels
ENDINGS = ("png", "jpg", "bmp", "gif", "tiff", "webp")
RATE, CHANNELS, SECONDS = 160.0, 32, 12


# Images: bench score MADE REAL

def images(n: int, side: int = SIDE) -> np.ndarray:
    """Smooth random images [n, side, side, 3]."""
    coarse = np.random.default_rng(0).integers(0, 255, (n, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
                     for image in coarse])


def write_folders(folder: Path) -> None:
    for name in ("real", "made"):
        (folder / name).mkdir()
        for number, (image, ending) in enumerate(zip(images(len(ENDINGS)), ENDINGS, strict=True)):
            Image.fromarray(image).save(folder / name / f"image{number}.{ending}")


def pixels(path: Path, other: Path) -> Read:
    made, real = gallery.open_gallery(path), gallery.open_gallery(other)
    rows = gallery.pair(made, real)
    return Read(free=digest(made.names, *(made.read(row) for row in rows[:, 0])))


def write_arrays(folder: Path) -> None:
    np.save(folder / "real.npy", images(6))
    np.save(folder / "made.npy", images(6))


def write_zipped(folder: Path) -> None:
    np.save(folder / "real.npy", images(6))
    np.savez_compressed(folder / "made.npz", images(6).astype(np.float32) / 255)


def write_labels(folder: Path) -> tuple[str, ...]:
    write_arrays(folder)
    (folder / "labels.csv").write_text("name,label\n" + "".join(f"{row},{row % 4}\n" for row in range(6)))
    return tuple(map(str, range(6)))


# Frozen networks: bench score --judge FILE

JUDGED = ("two_way_judge_features", "correlation_judge", "judge_distance")


def write_judge(folder: Path) -> None:
    write_arrays(folder)
    shutil.copy(TINY.weights("judge").path, folder / "mine.safetensors")


def write_timm(folder: Path) -> None:
    import timm
    import torch
    from timm.models import save_for_hf

    write_arrays(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", num_classes=4)
    save_for_hf(net, str(folder / "mine"), safe_serialization=True, model_config={"pretrained_cfg": {
        "input_size": (3, SIDE, SIDE), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}})
    for file in (folder / "mine").iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()


def judged(folder: Path, judge: Path) -> Read:
    import torch

    from bench.scoring.compare import compare

    threads = torch.get_num_threads()
    try:
        comparison = compare(folder / "made.npy", folder / "real.npy", wanted=JUDGED, judge=str(judge))
    finally:
        torch.set_num_threads(threads)
    return Read(free=digest(comparison.summary, comparison.about["judge"].partition("@")[0]))


def write_frozen(folder: Path) -> None:
    for name in ("judge.safetensors", "provenance.json"):
        shutil.copy(scale.PRIOR / "tiny" / name, folder)


def read_frozen(folder: Path, _: Any) -> Read:
    from bench.scoring.networks import weights_present
    from models import frozen

    part = scale.shipped.__wrapped__(folder, "judge")
    with weights_present():
        net = frozen.load_judge(part.path, part.sha256)
    return Read(digest(part, *(tensor.numpy() for tensor in net.state_dict().values())))


# Results: bench table

ABOUT = {"scale": "tiny", "world": "0", "config": "c", "spec": "v", "judge": "judge@abc", "numerics": "cpu",
         "pretrain_seeds": "each", "params": 1234, "paper_params": "297M", "leaky": "no", "versions": "torch 2",
         "failed": "", "stage": "0123456789abcdef"}


def write_results(folder: Path) -> None:
    folder = folder / "tiny"
    for name, value in (("systems", 0.25), ("clip", 0.75)):  # the table of systems reads the times of runs
        for variant in ("Full", "11"):
            rows = pd.DataFrame([{"variant": variant, "seed": 0, "items": "real", "metric": metric, "key": "16 classes",
                                  "value": value, "n": 8, "extractor": "", "extractor_sha256": "", "comparable": 1,
                                  **ABOUT} for metric in ("top1_label", "psnr")])
            each = pd.DataFrame([{"variant": variant, "seed": 0, "items": "real", "item": item, "sample": 0,
                                  "picture": item, "subject": 4, "label": item % 4, "judged": item % 3,
                                  "judged_real": item % 4, "top1_label": float(item % 2), "psnr": 9.5 + item}
                                 for item in range(8)])
            results.record(folder, name, rows, each)
        results.note_runs(folder, name, [{"variant": "Full", "seed": 0, "items": "real", "seconds": 3.5}])


def read_results(folder: Path, _: Any) -> Read:
    recorded = results.read(folder / "tiny", "systems")
    return Read(digest(recorded.rows, recorded.items), digest(results.runs(folder / "tiny", "systems")))


def write_sent(folder: Path) -> None:
    write_results(folder)
    shutil.move(folder / "tiny" / "systems.csv", folder / "sent.csv")
    shutil.rmtree(folder / "tiny")


def read_sent(folder: Path, _: Any) -> Read:
    table = named.external(folder / "sent.csv", "bench table sent.csv")
    return Read(free=digest(table.render("text"), table.render("csv")))


# Prepared data sets and corpora: bench data status --verify, and the stages that read them

def write_pairs(folder: Path) -> Any:
    rng = np.random.default_rng(0)
    part = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    own.prepare(folder / "data" / "mine", eeg=10 * rng.standard_normal((12, 8, 64)), sfreq=128.0, band=(5, 50),
                pictures=images(6, 32), trials={"subject": [1] * 12, "picture": [*range(6)] * 2, "label": [0, 1] * 6,
                                                "part_item": part, "session": ["a"] * 12},
                classes={"canoe": -1, "null": -1}, leaky="no: a test", ch_names=[f"E{n}" for n in range(8)])
    return datasets.find_pairs("mine", folder / "data")


def built(world: Any) -> str:
    from bench.train.trials import write_prepared

    with tempfile.TemporaryDirectory() as out:
        write_prepared(Trials(world, (1,), (5.0, 50.0)), Path(out))
        return digest(*(Path(out) / name for name in ("eeg.npy", "trials.csv", "classes.csv", "pictures.npy")))


def found_and_built(folder: Path, _: Any) -> Read:
    world = datasets.find_pairs("mine", folder / "data")
    about = prepared.read_manifest(Path(world.path))[0]
    return Read(built(world), digest(about))


def verified(lines: list[str]) -> Read:
    if lines:
        raise BenchError("; ".join(lines))
    return Read()


PAIRS = tuple(f"data/mine/{name}" for name in ("manifest.json", "eeg_5-50.npy", "trials.csv", "classes.csv",
                                                "pictures.npy"))


def write_corpus(folder: Path) -> Any:
    rng, receipts, root = np.random.default_rng(0), [], folder / "data"
    work = corpora.open_work_folder(root / "corpora" / "made", catalogue.Cutting())
    for name, subject, channels, n in (("a", 1, 32, 2), ("a", 2, 32, 2), ("b", 1, 40, 1)):
        writer = shard_writer.ShardWriter(work, name, subject)
        windows = rng.standard_normal((n, channels, 512)).astype(np.float16)
        writer.add(windows, [("0", "NA", float(i)) for i in range(n)], 250.0, [5.0, 95.0])
        receipts.append(writer.close(Counter(), Counter()))
    wanted = {"band": [5.0, 95.0], "datasets": ["a", "b"], "subjects": None,
              "window": {"n_times": 512, "per_subject": None, "sfreq": None, "stride": 512}}
    shard_writer.finish_corpus("made", root, work, receipts, wanted, [])
    return datasets.find_corpus("made", root)


def gathered(path: Path, sha256: str) -> str:
    windows = shards.open_shards(path, sha256)
    return digest(windows.index, windows.gather(np.arange(len(windows))).numpy())


def found_and_gathered(folder: Path, _: Any) -> Read:
    world = datasets.find_corpus("made", folder / "data")
    return Read(gathered(Path(world.path), world.sha256), digest(shards.read_manifest(Path(world.path))))


CORPUS = tuple(f"data/corpora/made/{name}" for name in ("manifest.json", "index.csv", "a/sub-001_C032.npy",
                                                         "a/sub-002_C032.npy", "b/sub-001_C040.npy"))


# The store: bench store verify; requests of engines

@dataclass(frozen=True)
class Grape(Stage):
    sort: str = "red"
    weight: float = 0.1


def write_store(folder: Path) -> Path:
    def fill(out: Path) -> None:
        np.save(out / "eeg.npy", np.arange(600.0))
        (out / "trials.csv").write_text("item,label\n0,1\n1,0\n")

    return Store(folder / "s").build(Grape(), fill, device="cpu")


def read_stored(folder: Path, place: Path) -> Read:
    store = Store(folder / "s", create=False)
    if damage := find_damage(place):
        raise BenchError(f"{place}: {damage}")
    listed = [(stage.key, stage.kind, stage.document) for stage in gc.list_stages(store)]
    manifest = store.manifest_of(place.name)
    return Read(digest(listed, manifest["key"], manifest["stage"], place / "eeg.npy", place / "trials.csv"),
                digest(manifest))


STORED = f"s/objects/{Grape().key[:2]}/{Grape().key}"
REQUEST = MICRO.items().trials
JOB = f"{'0' * 64}.job"


def write_requests(folder: Path) -> None:
    write_request(Store(folder / "s"), REQUEST)
    (folder / "s" / "requests" / JOB).write_text(json.dumps(
        {"engine": "slurm", "job": "17", "stage": json.loads(REQUEST.document)}))


def read_requests(folder: Path, _: Any) -> Read:
    stage = read_request(Store(folder / "s", create=False), REQUEST.key)
    return Read(digest(stage.key, stage.document), digest(repr(stage)))


# The audit's folder: bench audit --trials DIR

def write_audited(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 24
    pd.DataFrame({"item": range(n), "subject": 1, "picture": range(n), "label": [0, 1] * (n // 2),
                  "part": ["train"] * 16 + ["val"] * 4 + ["test"] * 4, "block": -1,
                  "position": rng.permutation(n), "session": "a"}).to_csv(folder / "trials.csv", index=False)
    np.save(folder / "eeg.npy", rng.standard_normal((n, 4, 64)).astype(np.float32))
    np.save(folder / "pictures.npy", rng.integers(0, 255, (n, 8, 8, 3), np.uint8))
    np.save(folder / "corpus.npy", rng.standard_normal((5, 4, 64)).astype(np.float32))


def read_audited(folder: Path, _: Any) -> Read:
    return Read(free=digest(audit.read(folder, folder / "corpus.npy").render()))


# Published data sets: bench data prepare NAME --from DIR

def prepares(module: Any, **options: Any) -> Callable[[Path, Any], Read]:
    def read(folder: Path, _: Any) -> Read:
        with tempfile.TemporaryDirectory() as root:
            out = module.prepare(folder, Path(root) / module.NAME, folder / "images", size=16, **options)
            files = sorted(path for path in out.iterdir() if path.name != prepared.MANIFEST)
            about = json.loads((out / prepared.MANIFEST).read_text())
            return Read(free=digest(*files, {name: about[name] for name in about if name not in ("sources", "files")}))

    return read


def preparing(name: str, *more: str) -> Callable[[Path], list[str | Path]]:
    return lambda folder: ["data", "prepare", name, "--from", folder, "--set", f"pictures={folder / 'images'}", "--set",
                           "size=16", *more, "--data", Path(tempfile.mkdtemp(dir=folder.parent))]


def write_imagenet(serialisation: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_imagenet_eeg(folder, (4,), WNIDS[:2], 3, serialisation=serialisation, side=24)

    return write


IMAGENET = ("eeg_5_95_std.pth", "block_splits_by_image_all.pth", "block_splits_by_image_single.pth",
            f"images/{WNIDS[0]}/{WNIDS[0]}_1000.JPEG")
THINGS = ("sub-01/preprocessed_eeg_training.npy", "sub-01/preprocessed_eeg_test.npy", "image_metadata.npy")
ALLJOINED = ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet")


# Recordings: bench data prepare FILES --name NAME

def recording() -> Any:
    time = np.arange(int(RATE * SECONDS)) / RATE
    rng = np.random.default_rng(0)
    data = 20 * rng.standard_normal((CHANNELS, len(time))) + 10 * np.sin(2 * np.pi * 11 * time)
    return as_raw(data, RATE, [f"E{number + 1}" for number in range(CHANNELS)], ((1.0, 0.5, "square"),))


def write_exported(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import mne

        raw = recording()
        if name.endswith(".fif"):
            raw.save(folder / name, verbose="error")
        elif name.endswith(".set"):
            write_eeglab(folder / name, raw.get_data() * 1e6)
        else:
            mne.export.export_raw(folder / name, raw, physical_range=(-300, 300), verbose="error") \
                if not name.endswith(".vhdr") else mne.export.export_raw(folder / name, raw, verbose="error")

    return write


def write_eeglab(path: Path, data: np.ndarray) -> None:
    """Writes EEGLAB's .set with its .fdt, [C, n] in µV."""
    from scipy.io import savemat

    names = np.array([(f"E{number + 1}",) for number in range(len(data))], [("labels", object)])
    data.astype("<f4").T.tofile(path.with_suffix(".fdt"))
    savemat(path, {"EEG": {
        "setname": "rec", "filename": path.name, "nbchan": float(len(data)), "trials": 1.0,
        "pnts": float(data.shape[1]), "srate": RATE, "xmin": 0.0, "xmax": (data.shape[1] - 1) / RATE,
        "data": path.with_suffix(".fdt").name, "chanlocs": names, "event": [], "epoch": [], "icawinv": [],
        "icaweights": [], "icasphere": [], "ref": "common"}}, appendmat=False)


def read_recording(path: Path) -> Read:
    """Finds a recording and cuts it into windows, as `bench data prepare` does with each."""
    recording, = eeg_files.find([path]).recordings
    with tempfile.TemporaryDirectory() as work:
        file_corpus.prepare_person(Path(work), "mine", 1, catalogue.Cutting((5.0, 70.0), 128, stride=128),
                                   recordings={1: [recording]})
        receipt = shard_writer.read_receipt(Path(work), "mine", 1)
        entry, = receipt["recordings"]
        if "unreadable" in entry:
            raise BenchError(f"{entry['file']}: {file_corpus.describe_result(entry)}")
        about = {name: entry[name] for name in entry if name not in ("file", "files", "run", "warnings")}
        shards = [{name: shard[name] for name in ("n", "channels", "effective_band")} for shard in receipt["shards"]]
        return Read(free=digest(about, shards, *(Path(work) / shard["file"] for shard in receipt["shards"])))


def prepared_from(name: str, ending: str) -> Callable[[Path], list[str | Path]]:
    return lambda folder: ["data", "prepare", given(folder / name, ending), "--name", "mine", "--band", "5,70",
                           "--data", Path(tempfile.mkdtemp(dir=folder.parent))]


def recordings(files: tuple[str, ...], ending: str, **more: Any) -> Reader:
    return Reader(f"EEG {files[0].rpartition('.')[2].upper()}", files, write_exported(files[0]),
                  lambda folder, _: read_recording(given(folder / files[0], ending)),
                  renames={files[0]: str(Path(files[0]).with_suffix(ending))},
                  command=prepared_from(files[0], ending), **more)


def scores(*arguments: str, judge: str = "none") -> Callable[[Path], list[str | Path]]:
    def command(folder: Path) -> list[str | Path]:
        places = [given(folder / text, {".npy": ".npz", ".npz": ".npy", ".csv": ".txt"}.get(Path(text).suffix, ""))
                  if (folder / text).exists() or "." in text else text for text in arguments]
        return ["score", *places, "--judge", judge if judge in ("none", "tiny") else folder / judge]

    return command


READERS = (
    Reader("images in a folder", tuple(f"made/image{number}.{ending}" for number, ending in enumerate(ENDINGS)),
           write_folders, lambda folder, _: pixels(folder / "made", folder / "real"),
           renames={"made/image0.png": "made/image0.jpg", "made/image1.jpg": "made/image1.png",
                    "made/image2.bmp": "made/image2.txt"},
           swaps=(("made/image0.png", "made/image1.jpg"), ("made/image3.gif", "made/image5.webp")), inputs=110,
           named=tuple(f"image{number}" for number in range(6)),  # a missing image is named without its ending
           command=scores("made", "real")),
    Reader("images in .npy", ("made.npy",), write_arrays,
           lambda folder, _: pixels(given(folder / "made.npy", ".npz"), folder / "real.npy"),
           renames={"made.npy": "made.npz"}, swaps=(("made.npy", "real.npy"),), command=scores("made.npy", "real.npy")),
    Reader("images in .npz", ("made.npz",), write_zipped,
           lambda folder, _: pixels(given(folder / "made.npz", ".npy"), folder / "real.npy"),
           renames={"made.npz": "made.npy"}, swaps=(("made.npz", "real.npy"),), command=scores("made.npz", "real.npy")),
    Reader("labels CSV", ("labels.csv",), write_labels,
           lambda folder, names: Read(free=digest(gallery.read_labels(given(folder / "labels.csv", ".txt"), names,
                                                                      16))),
           renames={"labels.csv": "labels.txt"}, swaps=(("labels.csv", "made.npy"),),
           command=lambda folder: ["score", folder / "made.npy", folder / "real.npy", "--labels",
                                   given(folder / "labels.csv", ".txt"), "--metrics", "top1_label"]),
    Reader("judge file", ("mine.safetensors",), write_judge,
           lambda folder, _: judged(folder, given(folder / "mine.safetensors", ".pth")),
           renames={"mine.safetensors": "mine.pth"}, swaps=(("mine.safetensors", "made.npy"),), inputs=60,
           command=lambda folder: ["score", folder / "made.npy", folder / "real.npy", "--metrics", ",".join(JUDGED),
                                   "--judge", given(folder / "mine.safetensors", ".pth")]),
    Reader("judge folder", ("mine/config.json", "mine/model.safetensors"), write_timm,
           lambda folder, _: judged(folder, folder / "mine"),
           renames={"mine/config.json": "mine/config.txt", "mine/model.safetensors": "mine/model.pth"},
           swaps=(("mine/config.json", "mine/model.safetensors"),), inputs=60,
           named=("/mine ", "/mine'"),  # the folder is what the user names
           command=lambda folder: ["score", folder / "made.npy", folder / "real.npy", "--metrics", ",".join(JUDGED),
                                   "--judge", folder / "mine"]),
    Reader("frozen part", ("judge.safetensors", "provenance.json"), write_frozen, read_frozen,
           renames={"judge.safetensors": "judge.pth"}, swaps=(("judge.safetensors", "provenance.json"),), inputs=40),
    Reader("results of an ablation", tuple(f"tiny/systems.{ending}" for ending in ("csv", "items.csv.gz", "sha256",
                                                                                      "runs.csv")),
           write_results, read_results, renames={"tiny/systems.csv": "tiny/systems.txt"},
           swaps=(("tiny/systems.csv", "tiny/systems.items.csv.gz"), ("tiny/systems.csv", "tiny/clip.csv"),
                  ("tiny/systems.sha256", "tiny/clip.sha256"), ("tiny/systems.runs.csv", "tiny/clip.runs.csv")),
           inputs=100, named=("systems",),  # a missing file of hashes: the CSV has none of that name
           command=lambda folder: ["table", "systems", "--scale", "tiny", "--results", folder]),
    Reader("results CSV", ("sent.csv",), write_sent, read_sent, renames={"sent.csv": "sent.txt"},
           command=lambda folder: ["table", folder / "sent.csv"]),
    Reader("data set of a plan", PAIRS, write_pairs, lambda _, world: Read(built(world)),
           renames={PAIRS[1]: "data/mine/eeg_5-50.npz"}, swaps=((PAIRS[2], PAIRS[3]), (PAIRS[1], PAIRS[4])),
           inputs=60),
    Reader("data set by name", PAIRS, write_pairs, found_and_built, inputs=60,
           renames={PAIRS[0]: "data/mine/manifest.txt"}, swaps=((PAIRS[0], PAIRS[3]),),
           named=("/data/mine",)),  # without a manifest there is no data set there
    Reader("data set, verified", PAIRS, write_pairs, lambda folder, _: verified(prepared.verify(folder / "data/mine")),
           renames={PAIRS[1]: "data/mine/eeg_5-50.npz"}, swaps=((PAIRS[2], PAIRS[3]), (PAIRS[1], PAIRS[4])), inputs=40,
           refuses=(1, 3), command=lambda folder: ["data", "status", "--verify", "--data", folder / "data"],
           named=("/data/mine",)),
    Reader("corpus of a plan", CORPUS, write_corpus, lambda _, world: Read(gathered(Path(world.path), world.sha256)),
           renames={CORPUS[2]: "data/corpora/made/a/sub-001_C032.npz"}, inputs=60,
           swaps=((CORPUS[2], CORPUS[3]), (CORPUS[3], CORPUS[4]), (CORPUS[0], CORPUS[1]))),
    Reader("corpus by name", CORPUS, write_corpus, found_and_gathered, inputs=60,
           renames={CORPUS[0]: "data/corpora/made/manifest.txt"}, swaps=((CORPUS[0], CORPUS[1]),),
           named=("/corpora/made", "/corpora;")),
    Reader("corpus, verified", CORPUS, write_corpus,
           lambda folder, _: verified(shards.verify(folder / "data/corpora/made")), inputs=40,
           renames={CORPUS[2]: "data/corpora/made/a/sub-001_C032.npz"}, swaps=((CORPUS[2], CORPUS[3]),),
           refuses=(1, 3), command=lambda folder: ["data", "status", "--verify", "--data", folder / "data"]),
    Reader("stage in a store", tuple(f"{STORED}/{name}" for name in ("MANIFEST.json", "eeg.npy", "trials.csv")),
           write_store, read_stored, renames={f"{STORED}/eeg.npy": f"{STORED}/eeg.npz"}, inputs=70,
           swaps=((f"{STORED}/eeg.npy", f"{STORED}/trials.csv"), (f"{STORED}/MANIFEST.json", f"{STORED}/trials.csv")),
           named=(Grape().key,), refuses=(1, 3), command=lambda folder: ["store", "verify", "--store", folder / "s"]),
    Reader("notes of jobs", (f"s/requests/{JOB}",), write_requests, inputs=40,
           read=lambda folder, _: Read(free=digest(gc.engine_jobs(Store(folder / "s", create=False))))),
    Reader("requests", (f"s/requests/{REQUEST.key}.json",), write_requests, read_requests,
           renames={f"s/requests/{REQUEST.key}.json": f"s/requests/{REQUEST.key}.txt"}, inputs=50,
           swaps=((f"s/requests/{REQUEST.key}.json", f"s/requests/{JOB}"),),
           named=(REQUEST.key[:12],), accepts=(), module="bench.execute.worker",
           command=lambda folder: [REQUEST.key, "--store", folder / "s"]),
    Reader("audited folder", ("trials.csv", "eeg.npy", "pictures.npy", "corpus.npy"), write_audited, read_audited,
           renames={"trials.csv": "trials.txt", "eeg.npy": "eeg.npz"},
           swaps=(("eeg.npy", "pictures.npy"), ("eeg.npy", "corpus.npy"), ("trials.csv", "eeg.npy")), inputs=90,
           named=("trials.csv",),  # the table that an array does not fit
           accepts=(0, 1), command=lambda folder: ["audit", "--trials", folder]),
    Reader("ImageNet-EEG, legacy", IMAGENET, write_imagenet("legacy"), prepares(imagenet_eeg), inputs=50,
           renames={IMAGENET[0]: "eeg_14_70_std.pth"}, swaps=((IMAGENET[1], IMAGENET[2]), (IMAGENET[0], IMAGENET[1])),
           named=("eeg_5_95_std.pth",), command=preparing("imagenet_eeg")),
    Reader("ImageNet-EEG, zip", IMAGENET, write_imagenet("zip"), prepares(imagenet_eeg), inputs=50,
           renames={IMAGENET[0]: "eeg_5_95_std.pt"}, swaps=((IMAGENET[1], IMAGENET[2]), (IMAGENET[0], IMAGENET[2])),
           named=("eeg_5_95_std.pth",), command=preparing("imagenet_eeg")),
    Reader("THINGS-EEG2", THINGS, lambda folder: write_things(folder, "gifford", (1,), 3, side=16),
           prepares(things, val_concepts=1), renames={THINGS[0]: "sub-01/preprocessed_eeg_training.npz"}, inputs=50,
           swaps=((THINGS[0], THINGS[1]), (THINGS[1], THINGS[2])),
           named=("sub-01", "/images:"),  # an image that image_metadata.npy names is not there
           command=preparing("things_eeg2", "--set", "val_concepts=1")),
    Reader("Alljoined1", ALLJOINED, lambda folder: write_alljoined(folder, (1,), 2, 3) and None, prepares(alljoined),
           renames={ALLJOINED[0]: "data/train-00000-of-00001.txt"}, swaps=((ALLJOINED[0], ALLJOINED[1]),), inputs=50,
           command=preparing("alljoined")),
    recordings(("rec.edf",), ".bdf", inputs=60),
    recordings(("rec.bdf",), ".edf", inputs=60),
    recordings(("rec.vhdr", "rec.vmrk", "rec.eeg"), ".edf", inputs=70,
               swaps=(("rec.vhdr", "rec.vmrk"), ("rec.vmrk", "rec.eeg")), named=("rec.vhdr",)),
    recordings(("rec_raw.fif",), ".edf", inputs=60),
    recordings(("rec.set", "rec.fdt"), ".edf", inputs=60, swaps=(("rec.set", "rec.fdt"),),
               named=("rec.set",)),
)
