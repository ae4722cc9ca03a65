"""The command that starts the guest's Python: the host's program, its options, and environment variables.

The variables are those that Python and the locale read at start, and the one that keeps pytest from
loading installed plugins: the guest's warm-up loads the plugins that a run on the host would load.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

__all__ = [
    "GIVEN",
    "LEFT_OUT",
    "LOCALE_VARIABLES",
    "PYTHON_VARIABLES",
    "SUPERVISOR",
    "options_of",
    "start_command",
    "start_variables",
]

SUPERVISOR = "pytest_smol.guest.supervisor"

#: Set in guests; the plugin checks it, and tests may.
GUEST_VARIABLE = "SMOL_GUEST"

#: Variables that CPython reads. Source: "Command line and environment" of Python's documentation and
#: ``python --help-env``, 3.10 to 3.15. A list of names, not a prefix: PYTHON_GITLAB_TOKEN is a secret.
PYTHON_VARIABLES = (
    "PYTHONASYNCIODEBUG",
    "PYTHONBREAKPOINT",
    "PYTHONCASEOK",
    "PYTHONCOERCECLOCALE",
    "PYTHONDEBUG",
    "PYTHONDEVMODE",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONDUMPREFS",
    "PYTHONDUMPREFSFILE",
    "PYTHONEXECUTABLE",
    "PYTHONFAULTHANDLER",
    "PYTHONHASHSEED",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONINTMAXSTRDIGITS",
    "PYTHONIOENCODING",
    "PYTHONMALLOC",
    "PYTHONMALLOCSTATS",
    "PYTHONNODEBUGRANGES",
    "PYTHONNOUSERSITE",
    "PYTHONOPTIMIZE",
    "PYTHONPATH",
    "PYTHONPERFSUPPORT",
    "PYTHONPLATLIBDIR",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSAFEPATH",
    "PYTHONSTARTUP",
    "PYTHONTHREADDEBUG",
    "PYTHONTRACEMALLOC",
    "PYTHONUNBUFFERED",
    "PYTHONUSERBASE",
    "PYTHONUTF8",
    "PYTHONVERBOSE",
    "PYTHONWARNDEFAULTENCODING",
    "PYTHONWARNINGS",
    "PYTHON_BASIC_REPL",
    "PYTHON_COLORS",
    "PYTHON_CONTEXT_AWARE_WARNINGS",
    "PYTHON_CPU_COUNT",
    "PYTHON_DISABLE_REMOTE_DEBUG",
    "PYTHON_FROZEN_MODULES",
    "PYTHON_GIL",
    "PYTHON_HISTORY",
    "PYTHON_JIT",
    "PYTHON_LAZY_IMPORTS",
    "PYTHON_PERF_JIT_SUPPORT",
    "PYTHON_PRESITE",
    "PYTHON_THREAD_INHERIT_CONTEXT",
    "PYTHON_TLBC",
)

#: Variables that select the locale, which Python sets once, at its start. Source: locale(7) and, for
#: LANGUAGE, gettext's manual.
LOCALE_VARIABLES = (
    "LANG",
    "LANGUAGE",
    "LC_ADDRESS",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
)

#: If it is set, pytest does not load installed plugins, and the warm-up must not load them either.
_AUTOLOAD = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"

_READ_AT_START = frozenset((*PYTHON_VARIABLES, *LOCALE_VARIABLES, _AUTOLOAD))

#: Options of the interpreter, by letter, that are passed on to the guest's. Source: Python/getopt.c.
GIVEN = "bBdEIOPRsSuvWX"

#: The other options, each with the reason why it is not passed on.
LEFT_OUT = {
    "c": "the guest runs another program",
    "m": "the guest runs another program",
    "x": "the guest runs another program, and no line of that is skipped",
    "i": "it prompts for commands when the program ends; the guest's program does not end",
    "q": "it only suppresses the first lines of an interactive session",
    "t": "Python 3 ignores it",
    "h": "Python prints its help and runs nothing",
    "?": "Python prints its help and runs nothing",
    "V": "Python prints its version and runs nothing",
}

#: Options with an argument: the rest of the word, or the next word.
_WITH_ARGUMENT = "WX"

#: Options whose argument is the program; the words after it are the program's.
_WITH_PROGRAM = "cm"

#: The only long option that does more than print something. Its argument is the next word.
_PYCS = "--check-hash-based-pycs"

#: Set by pytest-xdist in its workers.
_WORKER = "PYTEST_XDIST_WORKER"


def start_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the guest's Python, where ``environ`` is the host's."""
    variables = {name: value for name, value in sorted(environ.items()) if name in _READ_AT_START}
    return {**variables, GUEST_VARIABLE: "1"}


def start_command(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The path and arguments of what guest/init executes as PID 1: env(1), which executes Python."""
    assignments = [f"{name}={value}" for name, value in start_variables(environ).items()]
    options = options_of(sys.orig_argv, environ)
    return ["/usr/bin/env", "-i", *assignments, sys.executable, *options, "-m", SUPERVISOR]


def options_of(orig_argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The interpreter's options in ``orig_argv`` (``sys.orig_argv``) that are passed on to the guest's.

    Each is a word of its own, and its argument the next word. Options that were set by a variable are
    left out, as the variable is passed on. So is ``-u`` in a worker of pytest-xdist: execnet starts
    each worker with it and then replaces standard output, so it has no effect on tests.
    """
    left_out = [["-u"]] if _WORKER in environ else []
    given: list[list[str]] = []
    words = list(orig_argv[:0:-1])  # in reverse order
    while words and words[-1].startswith("-") and words[-1] not in ("-", "--"):
        word = words.pop()
        if word == _PYCS and words:
            given.append([word, words.pop()])
        elif not _take_word(word[1:], words, given):
            break
    return [word for option in given if option not in left_out for word in option]


def _take_word(letters: str, words: list[str], given: list[list[str]]) -> bool:
    """Add the options in one word to ``given``; False if no options of the interpreter follow."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _WITH_ARGUMENT and (letters or words):
            given.append([f"-{letter}", letters or words.pop()])
            return True
        if letter in _WITH_ARGUMENT or letter in _WITH_PROGRAM or letter not in (*GIVEN, *LEFT_OUT):
            return False
        if letter in GIVEN:
            given.append([f"-{letter}"])
    return True
