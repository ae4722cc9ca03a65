"""A guest's messages: any bytes to the decoder, and what the host makes of messages that are nearly right.

The invariant: a message that is used or a declared error (WireError,
ProtocolError, and ValueError of what bridges check), never more kept than one
frame, and reports that pytest can show, count and send on, without a control
character of the guest's.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest._io import TerminalWriter
from _pytest.config import _prepareconfig

from fuzz.support.changes import changed
from fuzz.support.messages import SAMPLES
from fuzz.support.supply import Supply
from pytest_smol.artifacts.plugins.benchmark import _BENCHMARK
from pytest_smol.artifacts.plugins.coverage import _DATA
from pytest_smol.artifacts.plugins.shapes import checked
from pytest_smol.artifacts.plugins.syrupy_report import checked_report, merged
from pytest_smol.errors import ProtocolError
from pytest_smol.machine.dispatcher import GuestStop
from pytest_smol.protocol.wire import FROM_GUEST, MAX_FRAME, Decoder, Message, WireError
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.message_schema import require_valid
from pytest_smol.reports.nodes import NodeTable, stand_in
from pytest_smol.reports.screen import Screen

__all__ = ["run"]

LONGEST = 60.0
_CONTROL = re.compile(r"(?!\x1b\[[0-9;:]*m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BARE = ("-c", "/dev/null", "--color=yes", "--capture=no", "--assert=plain")


@cache
def _config() -> pytest.Config:
    """A run of pytest with its terminal, which is configured and never begins; it captures nothing."""
    root = str(Path(__file__).parent)
    no = [
        part for name in ("cacheprovider", "faulthandler", "threadexception") for part in ("-p", f"no:{name}")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        patch.delenv("PYTEST_ADDOPTS", raising=False)
        patch.delenv("PYTEST_PLUGINS", raising=False)
        config = _prepareconfig([root, f"--rootdir={root}", *_BARE, *no])
    config._do_configure()
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reporter._tw._file = io.StringIO()
    return config


@cache
def _item() -> pytest.Item:
    return stand_in(pytest.Session.from_config(_config()))


def run(data: bytes) -> None:
    """``data`` as a stream, as a frame's body, or as changes to a message that is right."""
    supply = Supply(data)
    kind = supply.number() % 8
    if kind == 0:
        sizes = [supply.number() for _ in range(supply.number() % 4)]
        _decode(supply.rest(), sizes)
    elif kind == 1:
        body = supply.rest()
        _decode(struct.pack("<I", len(body)) + body, [])
    else:
        message = changed(json.loads(SAMPLES[supply.number() % len(SAMPLES)]), supply)
        body = json.dumps(message).encode("ascii")
        for each in _decode(struct.pack("<I", len(body)) + body, []):
            _use(each, bool(kind % 2))


def _decode(stream: bytes, sizes: list[int]) -> list[Message]:
    decoder, found = Decoder(FROM_GUEST), []
    try:
        for size in (*sizes, len(stream)):
            found += list(decoder.feed(stream[:size]))
            stream = stream[size:]
            assert decoder.pending <= MAX_FRAME
    except WireError:
        return found
    return found


# What the host makes of a message


def _use(message: Message, colour: bool) -> None:
    user = _USERS.get(message["type"])
    if user is None:
        return
    try:
        require_valid(message)
        user(message, ReportBuilder(_config(), colour))
    except ProtocolError:
        return


def _report(message: Message, builder: ReportBuilder) -> None:
    report = builder.test_report(_item(), message["data"], LONGEST)
    assert report.nodeid == _item().nodeid
    assert 0 <= report.duration <= LONGEST
    _show(report)
    category, letter, word = _config().hook.pytest_report_teststatus(report=report, config=_config())
    assert isinstance(category, str)
    assert isinstance(letter, str)
    assert isinstance(word, (str, tuple))


def _collect_report(message: Message, builder: ReportBuilder) -> None:
    _show(builder.collect_report(message["data"]))


def _show(report: Any) -> None:
    """All that pytest does with a report; in a worker of pytest-xdist it is sent on."""
    for markup in (False, True):
        file = io.StringIO()
        writer = TerminalWriter(file)
        writer.hasmarkup = markup
        report.toterminal(writer)
        shown = file.getvalue()
        assert not _CONTROL.search(shown), shown
    assert isinstance(report.longreprtext, str)
    assert all(isinstance(title, str) and isinstance(text, str) for title, text in report.sections)
    hook = _config().hook
    sent = hook.pytest_report_to_serializable(config=_config(), report=report)
    hook.pytest_report_from_serializable(config=_config(), data=sent)


def _warning(message: Message, builder: ReportBuilder) -> None:
    builder.relay_warning(message)
    hook: Any = _config().hook
    hook.pytest_warning_recorded._call_history.clear()
    reporter: Any = _config().pluginmanager.get_plugin("terminalreporter")
    (warning,) = reporter.stats.pop("warnings")
    assert not _CONTROL.search(warning.message), warning.message


def _nodes(message: Message, builder: ReportBuilder) -> None:
    table = NodeTable(builder.clean)
    table.add(message["rows"])
    items, collectors = table.build(_item().session)
    assert len(items) + len(collectors) == len(message["rows"])
    for node in (*items, *collectors):
        assert node.nodeid is not None
        assert isinstance(list(node.keywords), list)


def _stop(message: Message, builder: ReportBuilder) -> None:
    GuestStop.of(message, builder.clean)


def _screen(message: Message, builder: ReportBuilder) -> None:
    Screen(_config(), builder.clean).report(message)
    reporter: Any = _config().pluginmanager.get_plugin("terminalreporter")
    file = reporter._tw._file
    assert not _CONTROL.search(file.getvalue())
    file.seek(0)
    file.truncate()


def _state(message: Message, builder: ReportBuilder) -> None:
    for check in (_coverage, _benchmark, _syrupy):
        try:
            check(message["data"])
        except ValueError:
            continue


def _coverage(data: dict[str, Any]) -> None:
    checked(data, _DATA)


def _benchmark(data: dict[str, Any]) -> None:
    checked(data, _BENCHMARK)


def _syrupy(data: dict[str, Any]) -> None:
    report = checked_report(data, Path(_config().rootpath), "__snapshots__")
    merged([report, report])


_USERS: Mapping[str, Callable[[Message, ReportBuilder], None]] = {
    "report": _report,
    "collect_report": _collect_report,
    "warning": _warning,
    "nodes": _nodes,
    "stop": _stop,
    "screen": _screen,
    "state": _state,
}
