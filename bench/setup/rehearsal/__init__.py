"""What the scale rehearsal runs on: small files in the real formats."""
