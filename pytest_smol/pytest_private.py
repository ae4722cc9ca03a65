"""All that the host's side uses of pytest's private parts: names of ``_pytest`` and private attributes.

No other module of the host's side imports from ``_pytest``. The guest has its own
uses, in ``guest/``: it runs inside pytest's session and needs other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter
from _pytest.config.findpaths import load_config_dict_from_file
from _pytest.junitxml import xml_key
from _pytest.main import wrap_session
from _pytest.outcomes import Exit
from _pytest.reports import CollectErrorRepr

__all__ = [
    "SHOWN_IN_DEBUGGER",
    "CollectErrorRepr",
    "Exit",
    "TerminalRepr",
    "TerminalWriter",
    "add_suite_property",
    "adds_python_path_early",
    "choose_by_cache",
    "ini_file",
    "known_markup",
    "mark_shown_in_debugger",
    "name_interrupted_place",
    "parser_of",
    "remember_tests",
    "replace_ini",
    "terminal_writer",
    "unknown_ini_keys",
    "wrap_session",
    "write_without_columns",
]


#: The attribute of a report whose failure a debugger has shown.
SHOWN_IN_DEBUGGER = "_pdbshown"


def adds_python_path_early(config: pytest.Config) -> bool:
    """Whether pytest adds the ini option ``pythonpath`` to ``sys.path`` before plugins load conftest files.

    Older ones have a plugin that does it afterwards.
    """
    return hasattr(config, "_configure_python_path")


def parser_of(config: pytest.Config) -> pytest.Parser:
    """The parser of the command line that ``config`` was made with."""
    return config._parser


def replace_ini(config: pytest.Config, name: str, value: object) -> None:
    """Let ``config.getini(name)`` give ``value`` from now on."""
    config._inicache[name] = value


def mark_shown_in_debugger(report: pytest.TestReport) -> None:
    """Let the terminal reporter leave a failure out of the summary: a debugger has shown it."""
    vars(report)[SHOWN_IN_DEBUGGER] = True


def add_suite_property(config: pytest.Config) -> Callable[[str, str], None] | None:
    """What adds a property of the test suite to the junit report, None where none is written."""
    xml: Any = config.stash.get(xml_key, None)
    add: Callable[[str, str], None] | None = getattr(xml, "add_global_property", None)
    return add


def name_interrupted_place(config: pytest.Config, path: str, lineno: int) -> None:
    """Let the terminal reporter name ``path`` and ``lineno`` as the place where the run was interrupted."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    shown = getattr(reporter, "_keyboardinterrupt_memo", None)
    if shown is not None:
        shown.reprcrash = ReprFileLocation(path, lineno, shown.reprcrash.message)


def terminal_writer(config: pytest.Config) -> Any:
    """The run's terminal writer, None where it has none (``-p no:terminal``)."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    return getattr(reporter, "_tw", None)


def write_without_columns(writer: Any, text: str) -> None:
    """Write ``text`` that takes no columns, such as a change of colour: ``writer`` does not count it."""
    writer._file.write(text)


def remember_tests(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Let ``--nf`` of the next run know that ``items`` are no new tests.

    Nothing is sorted: the guest has done that, and the host may lack the files of some.
    """
    new_first: Any = config.pluginmanager.get_plugin("nfplugin")
    if new_first is None:
        return
    others = config.pluginmanager.get_plugins() - {new_first}
    hook = config.pluginmanager.subset_hook_caller("pytest_collection_modifyitems", others)
    active, new_first.active = new_first.active, False
    try:
        hook(session=None, config=config, items=list(items))
    finally:
        new_first.active = active


def _parse_id(item: pytest.Item) -> None:
    """Let the id of ``item`` be that of its text: pytest 9.2 and newer compare ids by their parts."""
    known: Any = getattr(item, "_id", None)
    parse = getattr(type(known), "parse", None)
    if parse is not None:
        plain: Any = item
        plain._id = parse(item.nodeid)


def choose_by_cache(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect and sort ``items`` as ``--lf``, ``--ff``, ``--nf`` and ``--sw`` ask."""
    plugins = config.pluginmanager
    for item in items:
        _parse_id(item)
    own = {plugins.get_plugin(name) for name in ("lfplugin", "nfplugin", "stepwiseplugin")} - {None}
    hook = plugins.subset_hook_caller("pytest_collection_modifyitems", plugins.get_plugins() - own)
    chosen = list(items)
    try:
        hook(session=None, config=config, items=chosen)
    except (OSError, ValueError):  # --nf sorts by the time of files, which the host may not have
        return
    items[:] = chosen


def known_markup() -> Collection[str]:
    """The names of colours and other markup that a terminal writer knows; for any other it raises."""
    return TerminalWriter._esctable


def unknown_ini_keys(config: pytest.Config) -> list[str]:
    """The keys of the ini file that no plugin has declared."""
    return list(config._get_unknown_ini_keys())


#: The files that may hold pytest's settings of a directory, in the order in which pytest looks for them.
_INI_FILES = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"),
    *("pyproject.toml", "tox.ini", "setup.cfg"),
)


def ini_file(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The ini file of a pytest without arguments in ``directory``, and its values by name; None without one.

    Nothing of the project is executed. Raises :class:`pytest.UsageError` for a file that cannot be parsed.
    """
    for base in (directory, *directory.parents):
        for path in (base / name for name in _INI_FILES):
            values = load_config_dict_from_file(path) if path.is_file() else None
            if values is not None:
                # Since pytest 9 a value comes with where it is from.
                return path, {name: getattr(value, "value", value) for name, value in values.items()}
    return None
