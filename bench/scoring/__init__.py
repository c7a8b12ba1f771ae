"""Scores images against reference images, for any system; and the leak audit."""
