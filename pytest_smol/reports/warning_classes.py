"""Stand-ins for warning classes that only a guest has: never the guest's own code.

pytest-xdist sends a worker's warning as the name of its class and that class's
module, imports the module in the controller and asks it for the name. This
module has a class for every name that :func:`stand_in` gives.
"""

from __future__ import annotations

from pytest_smol.reports.text import clean, encodable

__all__ = ["stand_in"]

_LONGEST_NAME = 100


def stand_in(name: str) -> type[Warning]:
    """An empty warning class that is shown as ``name``, which a guest may have chosen."""
    shown = encodable(clean(name))[:_LONGEST_NAME]
    if shown.startswith("__") or shown in globals():  # this module has something else of that name
        shown = f"guest's {shown}"
    return type(shown, (Warning,), {"__module__": __name__})


def __getattr__(name: str) -> type[Warning]:
    if name.startswith("__"):
        raise AttributeError(name)
    return stand_in(name)
