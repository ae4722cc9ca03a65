"""Debuggers and shells in the guest, on the user's terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest._io import TerminalWriter
from _pytest.config import create_terminal_writer
from _pytest.debugging import pytestPDB

from pytest_smol.guest.port import Port
from pytest_smol.guest.terminal.pty import Terminal

__all__ = ["Debugging", "open_before_debuggers"]


def open_before_debuggers(terminal: Terminal) -> None:
    """Let debuggers find the terminal open when they are made.

    pytest_enter_pdb comes when that is over, too late for those that look
    what they are made on (IPython's, by prompt_toolkit).
    """
    choose = pytestPDB._import_pdb_cls

    def chosen(capman: Any) -> Any:
        terminal.open()
        return choose(capman)

    pytestPDB._import_pdb_cls = chosen  # type: ignore[method-assign]


class Debugging:
    """Hooks of the guest's pytest."""

    def __init__(self, port: Port, terminal: Terminal) -> None:
        self._port = port
        self._terminal = terminal

    def pytest_enter_pdb(self, pdb: Any) -> None:
        """Ask for the user's terminal."""
        self._terminal.open()
        self._terminal.follow(pdb)

    def pytest_leave_pdb(self) -> None:
        """Give the terminal back."""
        self._terminal.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector, report: Any) -> Iterator[None]:
        """Tell the host what pytest notes in a report that was sent before: that its failure was shown."""
        try:
            result = yield
            if isinstance(report, pytest.TestReport) and node.config.getoption("smol_shell"):
                self._shell(node.config, report)
            return result
        finally:
            if isinstance(report, pytest.TestReport) and hasattr(report, "_pdbshown"):
                self._port.send("pdb_shown")

    def _shell(self, config: pytest.Config, report: pytest.TestReport) -> None:
        """Where there is a terminal, show the failure, unless a debugger did, and open a shell there."""
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(in_=True)
        self._terminal.open()
        if self._terminal.is_tty:
            writer = create_terminal_writer(config, sys.stdout)
            if not hasattr(report, "_pdbshown"):
                _show(writer, report, config.option.showcapture)
                vars(report)["_pdbshown"] = True
            writer.line(f"smol: a shell where {report.nodeid} failed; exit goes on with the run")
            subprocess.call([shutil.which(os.environ.get("SHELL", "")) or "/bin/sh", "-i"])
        self._terminal.close()


def _show(writer: TerminalWriter, report: pytest.TestReport, captured: str) -> None:
    """Show a failure as pytest does when it enters its debugger."""
    writer.line()
    for name, text in (("stdout", report.capstdout), ("stderr", report.capstderr), ("log", report.caplog)):
        if captured in (name, "all") and text:
            writer.sep(">", f"captured {name}")
            writer.line(text.removesuffix("\n"))
    writer.sep(">", "traceback")
    report.toterminal(writer)
    writer.sep(">", "entering shell")
