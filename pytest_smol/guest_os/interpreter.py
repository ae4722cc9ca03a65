"""How the guest's Python is started: the host's, with the same flags and the variables it reads at start.

Its warm-up loads the plugins that a run of the host's would load by itself, so that variable is among them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

__all__ = ["SUPERVISOR", "start_command"]

SUPERVISOR = "pytest_smol.guest.supervisor"

#: Tells our plugin, and whatever else wants to know, that it runs inside a guest.
GUEST_VARIABLE = "SMOL_GUEST"

#: sys.flags that are options of the interpreter: field -> letter (Python/initconfig.c, ``python --help``).
_FLAGS = {
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_user_site": "s",
    "no_site": "S",
    "ignore_environment": "E",
    "bytes_warning": "b",
}

#: Locale variables, which the interpreter reads once at its start, as it does all of PYTHON*.
_LOCALE = ("LANG", "LANGUAGE")

#: With it pytest loads no installed plugin unasked, and what one would import must not be there already.
_AUTOLOAD = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


def _read_at_start(name: str) -> bool:
    return name.startswith(("PYTHON", "LC_")) or name in (*_LOCALE, _AUTOLOAD)


def start_command(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The argument list that starts the guest's PID 1."""
    variables = {name: value for name, value in environ.items() if _read_at_start(name)}
    variables[GUEST_VARIABLE] = "1"
    assignments = [f"{name}={value}" for name, value in sorted(variables.items())]
    flags = ["-" + letter * int(getattr(sys.flags, field)) for field, letter in _FLAGS.items()]
    return [
        "/usr/bin/env",
        "-i",
        *assignments,
        sys.executable,
        *filter(lambda flag: flag != "-", flags),
        "-m",
        SUPERVISOR,
    ]
