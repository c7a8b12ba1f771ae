"""The source of every stage is recorded: an edit that changes what a stage means must bump its version.

After an edit that changes no result, or after a bump: python tests/experiment/test_versions.py
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path

import pytest

from bench import systems
from bench.experiment import stages
from bench.experiment.key import Stage
from bench.prior import recipe
from bench.systems import brain2image, guided, known, linear, own, perceptogram, released, thoughtviz

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).parents[1] / "versions.json"
WORLD = ["bench/data/tiny.py", "bench/data/tiny_things.py", "bench/data/pictures.py", "bench/data/recordings.py",
         "bench/data/prepared.py", "bench/data/montages.py"]
MODEL = ["models/encoders/msm_vit.py", "bench/train/encoder.py"]
MEASURE = ["bench/scoring/measure.py", "bench/scoring/neighbours.py", "bench/scoring/retrieval.py",
           "bench/scoring/sets.py"]
FROZEN = ["models/frozen/load.py", "models/frozen/checkpoints.py", "models/frozen/crop.py", "models/frozen/parts.py",
          "models/frozen/sample.py"]
PRIOR = ["bench/prior/train.py", "bench/data/pictures.py", *FROZEN]
DRAWS = ["bench/train/generate.py", "bench/train/targets.py", "bench/train/loop.py", "bench/train/items.py"]
TRAINED = [*DRAWS, "bench/train/losses.py"]
BRAIN2IMAGE = ["bench/train/brain2image.py", "models/brain2image.py", *TRAINED]
THOUGHTVIZ = ["bench/train/thoughtviz.py", "models/thoughtviz.py", *TRAINED]
LINEAR = ["bench/train/linear.py", *FROZEN, *DRAWS]
GUIDED = ["bench/train/guided.py", "models/guided.py", "models/diffusion_prior.py", "models/encoders/atm.py",
          "models/encoders/nice.py", "models/adapter.py", "models/captioner.py", *FROZEN, *TRAINED]
KNOWN = ["bench/train/known.py", "bench/data/known.py", "bench/train/losses.py", "bench/train/items.py", *MODEL]
OWN = ["bench/train/own.py", *FROZEN, *DRAWS]
SOURCES = {  # what a stage's output is made by, beside the libraries
    stages.Trials: ["bench/train/trials.py", "bench/data/imagenet_eeg.py", *WORLD],
    stages.Corpus: ["bench/train/corpus.py", "bench/data/tiny_moabb.py", *WORLD],
    stages.Pretrain: ["bench/train/pretrain.py", "bench/train/loop.py", "bench/train/parallel.py",
                      "bench/data/shards.py", "bench/data/montages.py", "models/mae.py", "models/masking.py", *MODEL],
    stages.Targets: ["bench/train/targets.py", "bench/train/loop.py", *FROZEN],
    stages.Features: ["bench/train/targets.py", "bench/data/features.py", "bench/data/prepared.py"],
    stages.Finetune: ["bench/train/finetune.py", "bench/train/latents.py", "bench/train/targets.py",
                      "bench/train/loop.py", "bench/train/parallel.py", "bench/train/items.py", "models/condition.py",
                      *FROZEN, *MODEL],
    stages.Generate: ["bench/train/generate.py", "bench/train/finetune.py", "bench/train/loop.py",
                      "bench/train/items.py",
                      "models/condition.py", *FROZEN, *MODEL],
    stages.Reference: ["bench/train/reference.py", "bench/train/targets.py", "bench/data/pictures.py",
                       "bench/data/prepared.py", *FROZEN],
    stages.TrainFeatures: ["bench/train/reference.py", "bench/scoring/neighbours.py", "bench/images.py",
                           "models/extractors.py", *FROZEN],
    stages.Score: ["bench/train/score.py", *MEASURE, "bench/train/targets.py", "bench/metrics.py",
                   "bench/train/loop.py", "bench/images.py", "bench/train/items.py",
                   "models/extractors.py", "models/pins.py", *FROZEN],
    stages.Retrieval: ["bench/train/score.py", *MEASURE, "bench/metrics.py", "bench/train/items.py",
                       "models/pins.py"],
    stages.Readout: ["bench/train/readout.py", "bench/train/items.py", "models/classifiers.py", *MODEL],
    stages.Trivial: ["bench/train/generate.py", "bench/train/targets.py", "bench/train/loop.py", "bench/train/items.py",
                     *FROZEN],
    brain2image.Brain2ImageEncoder: BRAIN2IMAGE, brain2image.Brain2ImageGan: BRAIN2IMAGE,
    brain2image.Brain2ImageVae: BRAIN2IMAGE, brain2image.Brain2ImagePictures: BRAIN2IMAGE,
    thoughtviz.ThoughtVizEeg: THOUGHTVIZ, thoughtviz.ThoughtVizClassifier: THOUGHTVIZ,
    thoughtviz.ThoughtVizGan: THOUGHTVIZ, thoughtviz.ThoughtVizPictures: THOUGHTVIZ,
    linear.Factors: LINEAR, linear.Ridge: LINEAR, linear.ImageToImage: LINEAR,
    perceptogram.EmbeddedPictures: ["bench/train/perceptogram.py", *LINEAR, *GUIDED],
    known.KnownCorpus: ["bench/train/known.py", "bench/data/known.py", *WORLD], known.Oracle: KNOWN,
    known.KnownPretrain: ["bench/train/pretrain.py", "bench/train/loop.py", "bench/train/parallel.py",
                          "models/mae.py", "models/masking.py", *KNOWN],
    known.Probe: KNOWN, known.ProbeEmbedding: KNOWN,
    known.Identification: ["bench/train/known.py", "bench/train/score.py", *MEASURE, "bench/metrics.py"],
    own.OwnFit: OWN, own.Own: OWN,
    released.ReleasedPictures: ["bench/train/released.py", "models/released.py", "models/condition.py", *FROZEN, *DRAWS,
                                *MODEL],
    guided.GuidedEncoder: GUIDED, guided.GuidedPrior: GUIDED, guided.GuidedLowLevel: GUIDED,
    guided.GuidedCaptions: GUIDED, guided.GuidedPictures: GUIDED, guided.GuidedEmbedding: GUIDED,
    recipe.Judge: PRIOR, recipe.Vae: PRIOR, recipe.Clip: PRIOR, recipe.Unet: PRIOR,
    recipe.Adapter: [*PRIOR, "models/adapter.py"], recipe.Captioner: [*PRIOR, "models/captioner.py"],
}


def digest(files: list[str]) -> str:
    return hashlib.sha256(b"\0".join((ROOT / file).read_bytes() for file in files)).hexdigest()[:16]


def recorded() -> dict[str, dict[str, object]]:
    return {kind.__name__: {"version": kind.version, "source": digest(files)} for kind, files in SOURCES.items()}


def test_every_kind_of_stage_is_recorded():
    modules = [stages, recipe, *(importlib.import_module(f"bench.systems.{name}") for name in systems.names())]
    assert set(SOURCES) == {value for module in modules for value in vars(module).values()
                            if isinstance(value, type) and issubclass(value, Stage) and value is not Stage}


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.__name__)
def test_an_edited_stage_has_a_new_version_or_a_new_record(kind):
    before, now = json.loads(RECORD.read_text())[kind.__name__], recorded()[kind.__name__]
    assert now == before, (
        f"the source of {kind.__name__} changed: bump its version where its output means something else, then record "
        "it: python tests/experiment/test_versions.py")


if __name__ == "__main__":
    RECORD.write_text(json.dumps(recorded(), indent=1) + "\n")
