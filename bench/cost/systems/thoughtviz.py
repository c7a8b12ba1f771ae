"""Costs of ThoughtViz' stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.cost import counting
from bench.cost.counting import Cost, meta, on_meta
from bench.cost.sizes import count_trials, image_bytes, padded, shape_of, size_of
from bench.experiment.key import Stage
from bench.systems.thoughtviz import ThoughtVizClassifier, ThoughtVizEeg, ThoughtVizGan, ThoughtVizPictures
from models.parameters import count_parameters

if TYPE_CHECKING:
    from torch import Tensor


def seconds(stage: Stage) -> float:
    """Seconds on one core, from runs at scale tiny."""
    each = {ThoughtVizEeg: 1e-3, ThoughtVizClassifier: 4e-4, ThoughtVizGan: 1.6e-3}
    if isinstance(stage, (ThoughtVizEeg, ThoughtVizClassifier, ThoughtVizGan)):
        return stage.schedule.steps * stage.schedule.batch * each[type(stage)]
    return 1.0


def cost(stage: Stage) -> Cost | None:
    """The cost of building one of these stages, in float32; None for any other. Training data stay on the GPU."""
    if isinstance(stage, ThoughtVizEeg):
        return _eeg_cost(stage)
    if isinstance(stage, ThoughtVizClassifier):
        return _classifier_cost(stage)
    if isinstance(stage, ThoughtVizGan):
        return _gan_cost(stage)
    if not isinstance(stage, ThoughtVizPictures):
        return None
    items, generator = count_trials(stage.items), _build_generator(stage.model).eval()
    flops = items * _feature_flops(stage.model.eeg) + padded(items * stage.samples, stage.batch) \
        * counting.forward_flops(lambda: generator(*_inputs(1)))
    return Cost(flops, None, image_bytes(items * stage.samples))


def _eeg_cost(stage: ThoughtVizEeg) -> Cost:
    net, (channels, times) = _build_eeg(stage).eval(), shape_of(stage.items)

    def run(n: int, dtype: Any = None) -> Tensor:
        return net(meta(n, channels, times, dtype=dtype))

    step = counting.step_flops(lambda: run(1))
    held = count_trials(stage.items) * 4 * channels * times
    return counting.training_cost(stage.schedule.steps * stage.schedule.batch * step, net, net,
                                  counting.bytes_per_sample(net, run), stage.schedule.batch, held)


def _classifier_cost(stage: ThoughtVizClassifier) -> Cost:
    net = _build_classifier(stage).eval()
    step = counting.step_flops(lambda: net(_images(1, stage.side)))
    sample = counting.bytes_per_sample(net, lambda n, dtype: net(_images(n, stage.side, dtype)))
    return counting.training_cost(stage.schedule.steps * stage.schedule.batch * step, net, net, sample,
                                  stage.schedule.batch, _data_bytes(stage))


def _gan_cost(stage: ThoughtVizGan) -> Cost:
    """A step runs the discriminator on real and generated images, and the generator through it and the classifier."""
    from torch import nn

    from models.thoughtviz import Discriminator

    generator, classifier, side = _build_generator(stage), _build_classifier(stage.classifier), stage.classifier.side
    discriminator = on_meta(Discriminator, side, stage.discriminator, stage.schedule.dropout)
    every = nn.ModuleList([generator, discriminator, classifier]).eval()

    def fool(n: int, dtype: Any = None) -> Tensor:
        images = generator(*_inputs(n, dtype))
        return discriminator(images).sum() + classifier(images).sum()

    judge = counting.step_flops(lambda: discriminator(_images(1, side)))
    discriminator.requires_grad_(False)
    classifier.requires_grad_(False)
    through = counting.step_flops(lambda: fool(1))
    trained = nn.ModuleList([generator, discriminator.requires_grad_(True)])
    flops = stage.schedule.steps * stage.schedule.batch * (2 * judge + through)
    return counting.training_cost(flops + count_trials(stage.items) * _feature_flops(stage.eeg), trained, generator,
                                  counting.bytes_per_sample(every, fool), stage.schedule.batch,
                                  _data_bytes(stage.classifier) + 4 * count_parameters(classifier))


def _data_bytes(stage: ThoughtVizClassifier) -> int:
    """Bytes of the training images."""
    return count_trials(stage.items) * (1 + stage.mirror) * 3 * stage.side**2 * 4


def _build_eeg(stage: ThoughtVizEeg) -> Any:
    from models.thoughtviz import EegClassifier

    return on_meta(EegClassifier, *shape_of(stage.items), size_of(stage.items.trials).classes, stage.filters)


def _build_classifier(stage: ThoughtVizClassifier) -> Any:
    from models.thoughtviz import ImageClassifier

    return on_meta(ImageClassifier, size_of(stage.items.trials).classes, stage.widths)


def _build_generator(stage: ThoughtVizGan) -> Any:
    from models.thoughtviz import Generator

    return on_meta(Generator, stage.generator)


def _feature_flops(stage: ThoughtVizEeg) -> int:
    """FLOPs of the features of one trial."""
    net, shape = _build_eeg(stage).eval(), shape_of(stage.items)
    return counting.forward_flops(lambda: net.features(meta(1, *shape)))


def _images(n: int, side: int, dtype: Any = None) -> Tensor:
    return meta(n, 3, side, side, dtype=dtype)


def _inputs(n: int, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Noise and features of n samples."""
    from models.thoughtviz import FEATURES, NOISE

    return meta(n, NOISE, dtype=dtype), meta(n, FEATURES, dtype=dtype)
