"""Data and weights of the scale rehearsal: made up, small, in the formats of the published ones."""
