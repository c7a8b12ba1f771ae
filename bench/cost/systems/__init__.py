"""The costs of systems' own stages, one file for each system."""
