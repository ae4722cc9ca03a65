"""What a guest session is told, in one type: its fields are those of the ``session`` message."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.host.process_state import process_state, umask
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.plugin_compat import drawn_options, plugin_modules
from pytest_smol.settings import Settings

__all__ = ["SessionRequest", "invocation"]

#: Marks fields that are the same in all processes of a distributed run.
_COMMON: Mapping[str, bool] = {"common": True}


@dataclass(frozen=True)
class SessionRequest:
    """What a guest session is told of the host's run of pytest.

    Each field but ``rootdir`` is a field of the ``session`` message. A worker of
    pytest-xdist takes those with the metadata ``common`` from its controller.
    """

    #: The command line of pytest, and ``sys.argv``.
    args: tuple[str, ...] = field(metadata=_COMMON)
    argv: tuple[str, ...] = field(metadata=_COMMON)
    rootdir: Path
    cwd: Path = field(metadata=_COMMON)
    sys_path: tuple[str, ...] = field(metadata=_COMMON)
    env: dict[str, str] = field(metadata=_COMMON)
    #: Values that the host's plugins drew at random, by the option's ``dest``.
    options: dict[str, int | str] = field(default_factory=dict)
    #: Whether one guest collects all modules (``session``), or each fork its own (``module``).
    collect: str = "session"
    #: How pytest-xdist distributes the tests: its ``--dist``, or ``no``.
    dist: str = "no"
    #: Which files to send (:meth:`ArtifactCollector.request`).
    files: Message = field(default_factory=dict, metadata=_COMMON)
    #: What the terminal is like (:meth:`Screen.terminal_properties`).
    screen: Message = field(default_factory=dict, metadata=_COMMON)
    #: Whether what tests print is shown as it comes.
    uncaptured: bool = field(default=False, metadata=_COMMON)
    #: The modules of the host's plugins.
    plugins: tuple[str, ...] = field(default=(), metadata=_COMMON)
    #: The most output of one test, in bytes.
    output_limit: int = 16 << 20
    #: Where the random numbers of tests come from, None for anything.
    seed: int | None = None
    #: The most that tests can write, in bytes, None for what there is room for.
    storage: int | None = None
    #: What the host's process would pass on to a child (:func:`process_state`).
    process: Message = field(default_factory=process_state, metadata=_COMMON)

    @classmethod
    def of(
        cls,
        config: pytest.Config,
        settings: Settings,
        sys_path: Sequence[str],
        *,
        files: Message,
        screen: Message,
        uncaptured: bool,
    ) -> SessionRequest:
        """The request for the run of ``config``, whose process began with ``sys_path``."""
        return cls(
            **invocation(config, sys_path),
            rootdir=config.rootpath,
            env=settings.guest_environment(),
            options=drawn_options(config),
            files=files,
            screen=screen,
            uncaptured=uncaptured,
            plugins=plugin_modules(config),
            output_limit=settings.output_limit,
            seed=settings.seed,
            collect=settings.collect,
            storage=settings.tmp,
        )

    def content(self, user: str) -> Message:
        """The fields of the ``session`` message for tests that run as ``user`` (``host`` or ``root``).

        Left out are those that differ each time: ``fresh`` and ``drop_caches``.
        """
        told = (each.name for each in fields(self) if each.name != "rootdir")
        return {name: _json(getattr(self, name)) for name in told} | _account(user)

    def message(self, user: str, fresh: Mapping[str, Any], *, drop_caches: bool = False) -> Message:
        """The ``session`` message; the guest takes on the identity ``fresh`` before all else."""
        return {"type": "session", **self.content(user), "fresh": dict(fresh), "drop_caches": drop_caches}

    def common(self) -> dict[str, Any]:
        """The fields that all processes of a distributed run have in common, for execnet to send."""
        return simple({name: getattr(self, name) for name in _common_names()})

    def with_common(self, common: Mapping[str, Any]) -> SessionRequest:
        """This request with fields that another process gave by :meth:`common`, or some of them."""
        known = {name: common[name] for name in _common_names() if name in common}
        if "cwd" in known:
            known["cwd"] = Path(known["cwd"])
        return replace(self, **known)


def invocation(config: pytest.Config, sys_path: Sequence[str]) -> dict[str, Any]:
    """The fields of a request that say how the user started the run."""
    params = config.invocation_params
    return {
        "args": tuple(str(arg) for arg in params.args),
        "argv": tuple(sys.argv),
        "cwd": params.dir,
        "sys_path": tuple(sys_path),
    }


def simple(told: Mapping[str, Any]) -> dict[str, Any]:
    """``told`` with types that execnet can send."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}


def _common_names() -> list[str]:
    return [each.name for each in fields(SessionRequest) if each.metadata.get("common")]


def _json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _account(user: str) -> Message:
    """The account that tests run under: this process's own, or root's where ``user`` is ``root``."""
    root = user == "root" and os.getuid() != 0
    return {
        "uid": 0 if root else os.getuid(),
        "gid": 0 if root else os.getgid(),
        "groups": [0] if root else os.getgroups(),
        "umask": umask(),
    }
