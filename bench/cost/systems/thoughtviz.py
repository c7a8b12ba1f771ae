"""Costs of ThoughtViz' stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.experiment.key import Stage
from bench.experiment.stages import Items
from bench.systems.thoughtviz import ThoughtVizClassifier, ThoughtVizEeg, ThoughtVizGan, ThoughtVizPictures

if TYPE_CHECKING:
    from torch import Tensor

    from bench.cost.counting import Cost


def seconds(stage: Stage) -> float:
    """Seconds of one core, by runs at scale tiny."""
    each = {ThoughtVizEeg: 1e-3, ThoughtVizClassifier: 4e-4, ThoughtVizGan: 1.6e-3}
    if isinstance(stage, (ThoughtVizEeg, ThoughtVizClassifier, ThoughtVizGan)):
        return stage.schedule.steps * stage.schedule.batch * each[type(stage)]
    return 1.0


def cost(stage: Stage) -> Cost | None:
    """Of building one of these stages, in float32; the data of a training lie on the GPU as a whole."""
    from bench.cost import counting, sizes
    from models import configurations

    if isinstance(stage, ThoughtVizEeg):
        return _eeg_cost(stage)
    if isinstance(stage, ThoughtVizClassifier):
        net = _classifier(stage)
        step = counting.counted(lambda: net.eval()(counting.meta(1, 3, stage.side, stage.side)), True)[1]
        sample = counting.another(net, lambda n: net(_pictures(n, stage.side, half=True)))
        return counting.training(stage.schedule.steps * stage.schedule.batch * step, net, net, sample,
                              stage.schedule.batch, _bytes(stage))
    if isinstance(stage, ThoughtVizGan):
        return _gan_cost(stage)
    if isinstance(stage, ThoughtVizPictures):
        items, generator = sizes.trials(stage.items), _generator(stage.model)
        drawn = -(-items * stage.samples // stage.batch) * stage.batch
        flops = items * _feature_flops(stage.model.eeg) + drawn * counting.counted(
            lambda: generator.eval()(*_inputs(1)), False)[0]
        return counting.Cost(flops, None, items * stage.samples * 3 * configurations.PIXELS**2)
    return None


def _eeg_cost(stage: ThoughtVizEeg) -> Cost:
    from bench.cost import counting, sizes

    net, world = _eeg(stage), stage.items.trials.world

    def run(n: int) -> Tensor:
        found: Tensor = net(counting.meta(n, world.n_chans, world.n_times, dtype=net.first.weight.dtype))
        return found

    step = counting.counted(lambda: (net.eval(), run(1))[1], True)[1]
    held = sizes.trials(stage.items) * 4 * world.n_chans * world.n_times
    return counting.training(stage.schedule.steps * stage.schedule.batch * step, net, net, counting.another(net, run),
                          stage.schedule.batch, held)


def _gan_cost(stage: ThoughtVizGan) -> Cost:
    """A step takes the discriminator over real and made pictures, and the generator through it and the classifier."""
    import torch

    from bench.cost import counting, sizes
    from models import parameters
    from models.thoughtviz import Discriminator

    generator, classifier, side = _generator(stage), _classifier(stage.classifier), stage.classifier.side
    with torch.device("meta"):
        discriminator = Discriminator(side, stage.discriminator, stage.schedule.dropout)
    every = torch.nn.ModuleList([generator, discriminator, classifier])

    def fooled(n: int, half: bool = False) -> Tensor:
        made = generator(*_inputs(n, half))
        found: Tensor = discriminator(made).sum() + classifier(made).sum()
        return found

    every.eval()
    told = counting.counted(lambda: discriminator(_pictures(1, side)), True)[1]
    discriminator.requires_grad_(False)
    classifier.requires_grad_(False)
    through = counting.counted(lambda: fooled(1), True)[1]
    trained = torch.nn.ModuleList([generator, discriminator.requires_grad_(True)])
    flops = stage.schedule.steps * stage.schedule.batch * (2 * told + through)
    return counting.training(flops + sizes.trials(stage.items) * _feature_flops(stage.eeg), trained, generator,
                          counting.another(every, lambda n: fooled(n, half=True)), stage.schedule.batch,
                          _bytes(stage.classifier) + 4 * parameters.count_parameters(classifier))


def _classes(items: Items) -> int:
    from bench.cost import sizes

    return sizes.size(items.trials.world, items.trials.subjects, items.trials.split).classes


def _bytes(stage: ThoughtVizClassifier) -> int:
    """Of the training pictures."""
    from bench.cost import sizes

    return sizes.trials(stage.items) * (1 + stage.mirror) * 3 * stage.side**2 * 4


def _eeg(stage: ThoughtVizEeg) -> Any:
    """On the meta device, as those below."""
    import torch

    from models.thoughtviz import EegClassifier

    world = stage.items.trials.world
    with torch.device("meta"):
        return EegClassifier(world.n_chans, world.n_times, _classes(stage.items), stage.filters)


def _classifier(stage: ThoughtVizClassifier) -> Any:
    import torch

    from models.thoughtviz import PictureClassifier

    with torch.device("meta"):
        return PictureClassifier(_classes(stage.items), stage.widths)


def _generator(stage: ThoughtVizGan) -> Any:
    import torch

    from models.thoughtviz import Generator

    with torch.device("meta"):
        return Generator(stage.generator)


def _feature_flops(stage: ThoughtVizEeg) -> int:
    """Of the features of one trial."""
    from bench.cost import counting

    net, world = _eeg(stage).eval(), stage.items.trials.world
    return counting.counted(lambda: net.features(counting.meta(1, world.n_chans, world.n_times)), False)[0]


def _pictures(n: int, side: int, half: bool = False) -> Tensor:
    import torch

    from bench.cost import counting

    return counting.meta(n, 3, side, side, dtype=torch.bfloat16 if half else torch.float32)


def _inputs(n: int, half: bool = False) -> tuple[Tensor, Tensor]:
    """Noise and features of n samples."""
    import torch

    from bench.cost import counting
    from models.thoughtviz import FEATURES, NOISE

    dtype = torch.bfloat16 if half else torch.float32
    return counting.meta(n, NOISE, dtype=dtype), counting.meta(n, FEATURES, dtype=dtype)
