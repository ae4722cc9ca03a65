"""The guest's terminal reporter: it writes to the host's, by messages, with the host's colours and width."""

from __future__ import annotations

import io
from typing import Any

import pytest

#: The longest text in one message, in characters: six bytes each at worst.
_MOST_TEXT = 1 << 20


class HostScreen(io.TextIOBase):
    """A file that the host shows on its terminal, in turn with the reports."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, port: Any, tty: bool) -> None:
        self._port = port
        self._tty = tty

    def write(self, text: str) -> int:
        """Send ``text`` to the host's terminal reporter."""
        for at in range(0, len(text), _MOST_TEXT):
            self._port.send("screen", text=text[at : at + _MOST_TEXT], fresh_line=False)
        return len(text)

    def begin_line(self) -> None:
        """Go to the start of a line, if the host's terminal is not there."""
        self._port.send("screen", text="", fresh_line=True)

    def isatty(self) -> bool:
        """Whether the host's terminal reporter writes to a terminal."""
        return self._tty

    def writable(self) -> bool:
        """As :meth:`io.IOBase.writable`."""
        return True


class MuteReporter:
    """The terminal reporter without its hooks: the host reports, but plugins can write to the terminal."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


class ReporterPlugin:
    """Takes the terminal from the guest's pytest. ``screen`` is what the host's Screen says of itself."""

    def __init__(self, port: Any, screen: dict[str, Any]) -> None:
        self._port = port
        self._screen = screen
        #: The user's ``--color``, where it was overridden.
        self._chosen: str | None = None
        #: The reporter that writes to the host's terminal, None with ``-p no:terminal``.
        self.reporter: Any = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """Set colours as on the host's terminal before any plugin reads them: the guest has no terminal."""
        if self._screen.get("markup"):
            self._chosen, config.option.color = config.option.color, "yes"

    def resemble(self, config: pytest.Config, screen: dict[str, Any]) -> None:
        """Look as the ``screen`` of a worker of pytest-xdist does, which is no terminal."""
        self._screen = screen
        if self._chosen is not None and not screen.get("markup"):
            config.option.color = self._chosen
        if self.reporter is not None:
            self._dress(self.reporter)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Let the terminal reporter write to the host's."""
        self.reporter = config.pluginmanager.unregister(name="terminalreporter")
        if self.reporter is not None:
            config.pluginmanager.register(MuteReporter(self.reporter), "terminalreporter")
            self._redirect(self.reporter)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Let the reporter know the session and its begin; the header is the host's to show."""
        if self.reporter is not None:
            option = session.config.option
            verbose, option.verbose = option.verbose, -1
            self.reporter.pytest_sessionstart(session)
            option.verbose = verbose

    @property
    def shows_header(self) -> bool:
        """Whether plugins are asked for lines of the header."""
        return self.reporter is not None and self.reporter.showheader and not self.reporter.no_header

    def _redirect(self, reporter: Any) -> None:
        tty = self._screen.get("tty", False)
        writer = reporter._tw
        screen = writer._file = HostScreen(self._port, tty)
        # It is the host's reporter that knows whether a line has begun.
        reporter.ensure_newline = screen.begin_line
        reporter.isatty = type(reporter.isatty)(tty)
        self._dress(reporter)

    def _dress(self, reporter: Any) -> None:
        writer = reporter._tw
        if self._screen:
            writer.hasmarkup = reporter.hasmarkup = self._screen["markup"]
            writer.code_highlight = self._screen["code_highlight"]
            writer.fullwidth = reporter._screen_width = self._screen["width"]
