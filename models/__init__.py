"""Torch modules and nothing else: no module here knows bench or ablations."""
