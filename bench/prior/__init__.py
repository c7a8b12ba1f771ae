"""The frozen parts of scale tiny: their recipe, their training, and their gates."""
