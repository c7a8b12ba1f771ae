"""A variant of DreamDiffusion: one row of a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bench.errors import BenchError

ALIGN = ("clip", "label", None)
OPENS = {  # what each choice of `tune` trains
    "E+A": {"E", "A", "tau"},
    "E": {"E", "tau"},
    "A": {"A", "tau"},
    "E+A+norm2": {"E", "A", "norm2", "tau"},
    "tau": {"tau"},
    "A-tau": {"A"},
}


@dataclass(frozen=True)
class Variant:
    """One row (Table 2). Raises BenchError for a value outside its range.

    mask_ratio  share of masked tokens in pre-training (Sec. 3.1); None: no pre-training
    align       "clip": L_clip (Eq. 3); "label": class labels in CLIP's place (Sec. 4.4); None: neither
    sd_loss     L_SD (Eq. 2); False: fine-tuning by alignment alone (Fig. 5)
    tune        what fine-tuning opens. E: the encoder; A: q, k, v, out of the U-Net's cross-attention; tau, and h
                where there is alignment, train in every row but "A-tau". "tau": nothing else trains; "E+A+norm2": the
                LayerNorm before each cross-attention counts as A; "A-tau": tau counts as E, and rests with it
    size        the encoder's label in the paper; the real count stands beside it
    encoder     a file of models/encoders/, or the path of one's own .py file with a class Encoder
    """

    name: str = field(compare=False)
    mask_ratio: float | None = 0.75
    align: str | None = "clip"
    sd_loss: bool = True
    tune: str = "E+A"
    size: str = "297M"
    encoder: str = "msm_vit"

    system: ClassVar[str] = "dreamdiffusion"

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise BenchError(f"variant {self.name!r}: {what}")

        if not isinstance(self.name, str) or not self.name:
            refuse(f"a name is text that is not empty, not {self.name!r}")
        if not isinstance(self.encoder, str) or not isinstance(self.size, str):
            refuse(f"encoder and size are text, not {self.encoder!r} and {self.size!r}")
        if not isinstance(self.sd_loss, bool):
            refuse(f"sd_loss is True or False, not {self.sd_loss!r}")
        if self.mask_ratio is not None and not (
                isinstance(self.mask_ratio, (int, float)) and 0 < self.mask_ratio < 1):
            refuse(f"mask_ratio lies between 0 and 1, or is None for no pre-training, not {self.mask_ratio!r}")
        if self.align not in ALIGN:
            refuse(f"align is one of {', '.join(map(repr, ALIGN))}, not {self.align!r}")
        if self.tune not in OPENS:
            refuse(f"tune is one of {', '.join(map(repr, OPENS))}, not {self.tune!r}")
        if not self.sd_loss and self.align is None:
            refuse("with sd_loss=False and align=None there is nothing to train on; set one of them")


FULL = Variant("Full")
