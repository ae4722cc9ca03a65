"""What a host offers to KVM, for the report. Run as a module it prints that as JSON."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from pytest_smol.engines.qemu import accelerator, program
from pytest_smol.errors import SmolError
from pytest_smol.host.processor import cpuinfo, processors

__all__ = ["facts"]

_PARAMETERS = Path("/sys/module")


def _module() -> str:
    """The loaded module of KVM, with its parameter for nested paging."""
    for module, parameter in (("kvm_amd", "npt"), ("kvm_intel", "ept")):
        try:
            value = (_PARAMETERS / module / "parameters" / parameter).read_text().strip()
        except OSError:
            continue
        return f"{module}, nested paging {'on' if value in ('Y', '1') else 'off'}"
    return "no module" if not os.path.exists("/dev/kvm") else "unknown (built in, or not shown here)"


def _qemu() -> str:
    try:
        return program.find("qemu-system-x86_64").version_text
    except SmolError as error:
        return str(error)


def facts() -> dict[str, str]:
    """This host in a few rows, in the order in which they are shown."""
    finding = accelerator.probe()
    reason = accelerator.verdict(finding)
    loop = (
        f"{finding / accelerator.ITERATIONS * 1e9:.1f} ns an iteration" if isinstance(finding, float) else ""
    )
    models = [each.get("model name", "unknown") for each in processors(cpuinfo())]
    system = os.uname()
    return {
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "processor": ", ".join(models),
        "kernel": f"{system.release} {system.version}",
        "QEMU": _qemu(),
        "module": _module(),
        "verdict": reason or f"KVM is used ({loop})",
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
