"""Fuzzing of all that decodes a guest's bytes, with atheris; see scripts/fuzz."""
