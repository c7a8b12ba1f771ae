"""Sources of images and EEG: the tiny world, published data sets, corpora, the user's arrays."""
