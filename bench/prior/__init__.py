"""The frozen parts of scale tiny: their recipe, their training, and their gates."""

import models  # noqa: F401  (before diffusers, which would import torchaudio)
