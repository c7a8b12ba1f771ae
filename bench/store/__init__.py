"""The store: a folder for each stage, leases, journals, provenance."""
