"""An ablation benchmark for EEG-to-image generation. What an ablation file needs is here."""

from dataclasses import replace

from bench.variant import FULL, Variant

__all__ = ["FULL", "Variant", "replace"]
