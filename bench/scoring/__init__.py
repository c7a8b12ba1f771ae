"""Scores images against reference images, for any system; and the leak audit."""

import models  # noqa: F401  (before torchmetrics, which would import torchaudio)
