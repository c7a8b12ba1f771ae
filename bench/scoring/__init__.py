"""Measures images against the real ones, whoever made them; and the leak audit."""

import models  # noqa: F401  (before torchmetrics, which would import torchaudio)
