"""The systems: each file holds a `plan(spec, items, scale, seed) -> Score` that ends in a folder of pictures."""
