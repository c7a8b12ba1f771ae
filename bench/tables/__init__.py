"""Results files, the tables made from them, and figures."""
