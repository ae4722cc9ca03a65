"""The decisions of scripts/setup, asked for one function at a time. Nothing is installed."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "scripts" / "setup"

DEB822 = """\
# a comment before the stanza
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
# a comment inside it
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

DEB822_SECURITY = """\
Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

DEB822_EMBEDDED_KEY = """\
Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: bookworm
 bookworm-updates
Components: main
Architectures: amd64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc=
 -----END PGP PUBLIC KEY BLOCK-----
"""

VENDOR = """\
Types: deb
URIs: https://vendor.example/apt
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/vendor.gpg
"""


def ask(script: str, *arguments: str, os_release: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which the functions of scripts/setup are known."""
    command = ["bash", "-c", f"source {shlex.quote(str(SETUP))}; {script}", "bash", *arguments]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **({"OS_RELEASE": str(os_release)} if os_release else {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def derive(etc: Path, codename: str = "bookworm") -> str:
    done = ask('derive_backports "$1" "$2"', str(etc), codename)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def add(etc: Path, name: str, text: str) -> None:
    (etc / "sources.list.d" / name).write_text(text)


@pytest.mark.parametrize(
    ("version", "enough"),
    [("8.2", True), ("8.2.2", True), ("8.10", True), ("10.0.2", True), ("8.1.9", False), ("7.2", False)],
)
def test_versions_are_compared_as_numbers(version: str, enough: bool) -> None:
    assert (ask("at_least 8.2 $1", version).returncode == 0) is enough


def test_backports_come_from_the_stanza_of_the_main_suite(etc: Path) -> None:
    add(etc, "debian.sources", DEB822_SECURITY + "\n" + DEB822)
    assert derive(etc) == (
        "Types: deb\n"
        "URIs: http://mirror.example/debian\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "Suites: bookworm-backports\n"
        "Components: main\n"
    )


def test_an_embedded_key_and_other_fields_stay(etc: Path) -> None:
    add(etc, "debian.sources", DEB822_EMBEDDED_KEY)
    assert derive(etc) == (
        "Types: deb\n"
        "URIs: mirror+file:/etc/apt/mirrors/debian.list\n"
        "Architectures: amd64\n"
        "Signed-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
        " .\n"
        " abc=\n"
        " -----END PGP PUBLIC KEY BLOCK-----\n"
        "Suites: bookworm-backports\n"
        "Components: main\n"
    )


@pytest.mark.parametrize(
    "stanza",
    [
        DEB822_SECURITY,
        DEB822 + "Enabled: no\n",
        DEB822.replace("Types: deb", "Types: deb-src"),
        DEB822.replace("Components: main", "Components: contrib"),
        DEB822.replace("bookworm ", "trixie "),
        "".join(f"# {line}\n" for line in DEB822.splitlines()),
    ],
    ids=["security", "disabled", "sources only", "not main", "another release", "commented out"],
)
def test_a_stanza_that_serves_something_else_is_not_taken(etc: Path, stanza: str) -> None:
    add(etc, "debian.sources", stanza)
    assert derive(etc) == ""


def test_debian_is_preferred_to_a_vendor_that_names_its_suite_alike(etc: Path) -> None:
    add(etc, "a-vendor.sources", VENDOR)
    add(etc, "debian.sources", DEB822)
    assert "mirror.example" in derive(etc)


def test_a_mirror_under_any_name_will_do(etc: Path) -> None:
    add(etc, "mirror.sources", VENDOR)
    assert "URIs: https://vendor.example/apt\n" in derive(etc)


def test_debian_in_the_one_line_form_is_preferred_to_a_vendor_in_the_other(etc: Path) -> None:
    add(etc, "vendor.sources", VENDOR)
    (etc / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    assert derive(etc) == "deb http://mirror.example/debian bookworm-backports main\n"


@pytest.mark.parametrize(
    ("line", "derived"),
    [
        (
            "deb http://mirror.example/debian bookworm main",
            "deb http://mirror.example/debian bookworm-backports main",
        ),
        (
            "  deb\t[ arch=amd64 trusted=yes ]  http://mirror.example/debian bookworm contrib main # why",
            "deb [ arch=amd64 trusted=yes ] http://mirror.example/debian bookworm-backports main",
        ),
        (
            "deb http://[::1]/debian bookworm main",
            "deb http://[::1]/debian bookworm-backports main",
        ),
    ],
    ids=["plain", "options", "IPv6"],
)
def test_backports_come_from_one_line_sources(etc: Path, line: str, derived: str) -> None:
    security = "deb http://mirror.example/debian-security bookworm-security main"
    (etc / "sources.list").write_text(f"# deb http://old.example/debian bookworm main\n{security}\n{line}\n")
    assert derive(etc) == derived + "\n"


@pytest.mark.parametrize(
    "line",
    [
        "deb-src http://mirror.example/debian bookworm main",
        "# deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian bookworm contrib",
        "",
    ],
)
def test_a_line_that_serves_something_else_is_not_taken(etc: Path, line: str) -> None:
    add(etc, "debian.list", line + "\n")
    assert derive(etc) == ""


def test_a_system_without_sources_gives_nothing(etc: Path) -> None:
    assert derive(etc) == ""


def test_a_missing_python_is_a_package(tmp_path: Path) -> None:
    done = ask('missing_packages "$1"', str(tmp_path / "python3"))
    assert {"python3", "python3-venv"} <= set(done.stdout.split())


def test_a_python_without_ensurepip_needs_the_package_of_its_version(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\ncase $2 in *version_info*) echo 3.12 ;; *) exit 1 ;; esac\n")
    python.chmod(0o755)
    assert "python3.12-venv" in ask('missing_packages "$1"', str(python)).stdout.split()


@pytest.mark.parametrize(("identifier", "wanted"), [("ubuntu", True), ("debian", False)])
def test_zstd_is_wanted_where_modules_are_compressed_with_it(
    tmp_path: Path, identifier: str, wanted: bool
) -> None:
    release = tmp_path / "os-release"
    release.write_text(f'NAME="A Name"\nID={identifier}\n')
    script = "command() { return 1; }; busybox_is_static() { true; }; missing_packages /none"
    assert ("zstd" in ask(script, os_release=release).stdout.split()) is wanted


def test_system_tools_that_are_there_are_not_installed() -> None:
    script = "command() { [[ $2 != nft && $2 != mdadm ]]; }; missing_system_tools"
    assert ask(script).stdout.split() == ["nftables", "mdadm"]


#: Functions in the place of apt: what "apt_get install" names is in the file $installed afterwards.
FAKE_APT = """
log=/dev/null
installed=$1
missing_system_tools() {
    local package
    for package in nftables xfsprogs mdadm; do grep -qx "$package" "$installed" || echo "$package"; done
}
have_package_lists() { true; }
may_install() { true; }
apt_get() {
    [[ $1 != install ]] && return
    shift
    [[ $* == *"$refused"* ]] && return 1
    printf '%s\\n' "$@" >>"$installed"
}
"""


def install(tmp_path: Path, script: str) -> tuple[str, list[str]]:
    """What install_system_tools says, and what is installed then."""
    installed = tmp_path / "installed"
    installed.touch()
    done = ask(f"{FAKE_APT}\n{script}\ninstall_system_tools", str(installed))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, installed.read_text().split()


def test_missing_system_tools_are_installed_at_once(tmp_path: Path) -> None:
    said, installed = install(tmp_path, "refused=none")
    assert said == "setup: installing nftables xfsprogs mdadm\n"
    assert installed == ["nftables", "xfsprogs", "mdadm"]


def test_a_package_that_cannot_be_installed_costs_no_other(tmp_path: Path) -> None:
    said, installed = install(tmp_path, "refused=mdadm")
    assert "some system tests will be skipped, as these packages are missing: mdadm\n" in said
    assert installed == ["nftables", "xfsprogs"]


def test_without_rights_the_command_is_shown(tmp_path: Path) -> None:
    said, installed = install(tmp_path, "may_install() { false; }")
    assert installed == []
    assert said.endswith("sudo apt-get install --no-install-recommends nftables xfsprogs mdadm\n")


@pytest.mark.parametrize(("version", "enough"), [("7.2.22", False), ("8.2.2", True), ("10.0.2", True)])
def test_the_version_of_qemu_is_read_from_its_own_words(tmp_path: Path, version: str, enough: bool) -> None:
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(
        f'#!/bin/sh\necho "QEMU emulator version {version} (Debian 1:{version}+dfsg-7)"\necho "(c)"\n'
    )
    qemu.chmod(0o755)
    assert (ask('PATH="$1:$PATH"; qemu_is_new_enough', str(tmp_path)).returncode == 0) is enough


def test_an_old_python_is_refused_with_a_remedy(tmp_path: Path) -> None:
    python = tmp_path / "python3.8"
    python.write_text("#!/bin/sh\necho 3.8\n")
    python.chmod(0o755)
    done = ask('check_python "$1"', str(python))
    assert done.returncode == 1
    assert "is Python 3.8, and 3.10 is the oldest supported" in done.stderr
    assert "hint: set PYTHON" in done.stderr


def test_an_error_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    done = ask('log=$1; die "it broke" "mend it"', str(log))
    assert done.stderr.splitlines()[-3:] == ["line 99", "setup: error: it broke", "setup: hint: mend it"]
    assert "line 10\n" not in done.stderr
