"""Experiments as values: variants, scales, stages and their keys. No torch."""
