"""One plain function for each kind of stage."""

import models  # noqa: F401  (before diffusers and torchmetrics, which would import torchaudio)
