"""Options that the host's plugins have settled: the guest's take them over instead of drawing their own."""

from __future__ import annotations

from collections.abc import Mapping

import pytest


class HostOptions:
    """Sets the options ``values``, by their ``dest``, before a plugin is configured with them."""

    def __init__(self, values: Mapping[str, int | str]) -> None:
        self._values = values

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """Set the options that plugins of the host drew, such as random seeds."""
        for name, value in self._values.items():
            if hasattr(config.option, name):
                setattr(config.option, name, value)
