"""Runs one target under atheris: ``python -m fuzz NAME [LIBFUZZER ARGUMENT...]``. See scripts/fuzz."""

from __future__ import annotations

import importlib
import sys
from typing import Any

#: Coverage is measured in these; pytest's own, as reports are rebuilt and shown by it.
INSTRUMENTED = ["pytest_smol", "_pytest.reports", "_pytest._code.code"]


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")  # scripts/fuzz has it, and nothing else needs it
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        target = importlib.import_module(f"fuzz.fuzz_{name}")
    atheris.Setup([sys.argv[0], *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
