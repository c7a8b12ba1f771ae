"""An ablation benchmark for EEG-to-image generation. What an ablation file needs is here."""

from dataclasses import replace

from bench.systems import captions, own, retrieval, trivial
from bench.variant import FULL, On, Variant

__all__ = ["FULL", "On", "Variant", "captions", "own", "replace", "retrieval", "trivial"]
