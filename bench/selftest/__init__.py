"""Runs every stage for a few steps on this machine, with random weights of the real sizes (`bench selftest`)."""
