"""The table of options: a flag wins over ini, ini over the default, and wrong values are named."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.settings import DEFAULT_ENV, Settings, add_arguments

#: Each option with a flag: name, text on the command line, its value, text in the ini-file, its value.
FLAGS = [
    ("scope", "test", "test", "session", "session"),
    ("accel", "kvm", "kvm", "tcg", "tcg"),
    ("memory", "512", 512, "1024", 1024),
    ("timeout", "1.5", 1.5, "20", 20.0),
    ("seed", "0", 0, "4294967295", 4294967295),
]
INI_ONLY = [
    ("kernel", "/boot/vmlinuz", "/boot/vmlinuz"),
    ("output_limit", "4", 4 << 20),
    ("tmp", "100", 100 << 20),
]

WRONG = [
    ("scope", "package", "one of test, class, module, session"),
    ("scope", "Test", "one of test, class, module, session"),
    ("accel", "hvf", "one of auto, kvm, tcg"),
    ("memory", "127", "from 128 to 1048576"),
    ("memory", "1048577", "from 128 to 1048576"),
    ("memory", "256M", "from 128 to 1048576"),
    ("memory", "256.5", "from 128 to 1048576"),
    ("memory", "-256", "from 128 to 1048576"),
    ("timeout", "0", "positive number of seconds"),
    ("timeout", "-1", "positive number of seconds"),
    ("timeout", "nan", "positive number of seconds"),
    ("timeout", "inf", "positive number of seconds"),
    ("timeout", "5m", "positive number of seconds"),
    ("seed", "-1", "from 0 to 4294967295"),
    ("seed", "4294967296", "from 0 to 4294967295"),
    ("seed", "1.5", "from 0 to 4294967295"),
    ("seed", "lucky", "from 0 to 4294967295"),
]


@pytest.fixture(autouse=True)
def plain_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMOL_GUEST", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


def settings(pytester: pytest.Pytester, *args: str, ini: str = "") -> Settings:
    pytester.makeini(f"[pytest]\n{ini}\n")
    return Settings.from_config(pytester.parseconfig(*args))


def test_without_anything_the_defaults_hold(pytester: pytest.Pytester) -> None:
    assert settings(pytester) == Settings()


@pytest.mark.parametrize(("name", "flag", "value", "_ini", "_ini_value"), FLAGS)
def test_a_flag_wins_over_the_default(
    pytester: pytest.Pytester, name: str, flag: str, value: object, _ini: str, _ini_value: object
) -> None:
    assert settings(pytester, f"--smol-{name}={flag}") == Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "_flag", "_value", "ini", "value"), FLAGS)
def test_ini_wins_over_the_default(
    pytester: pytest.Pytester, name: str, _flag: str, _value: object, ini: str, value: object
) -> None:
    assert settings(pytester, ini=f"smol_{name} = {ini}") == Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "flag", "value", "ini", "_ini_value"), FLAGS)
def test_a_flag_wins_over_ini(
    pytester: pytest.Pytester, name: str, flag: str, value: object, ini: str, _ini_value: object
) -> None:
    found = settings(pytester, f"--smol-{name}={flag}", ini=f"smol_{name} = {ini}")
    assert found == Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "text", "value"), INI_ONLY)
def test_some_are_for_the_ini_file_alone(
    pytester: pytest.Pytester, name: str, text: str, value: object
) -> None:
    assert settings(pytester, ini=f"smol_{name} = {text}") == Settings(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(pytest.UsageError, match=f"--smol-{name}"):
        pytester.parseconfig(f"--smol-{name}={text}")


@pytest.mark.parametrize(
    "args", [["--smol-qemu=/opt/qemu"], ["--smol-qemu", "/opt/qemu"], ["-o", "smol_qemu=/opt/qemu"]]
)
def test_the_user_names_programs_on_the_command_line(pytester: pytest.Pytester, args: list[str]) -> None:
    assert settings(pytester, *args).qemu == "/opt/qemu"


def test_the_user_names_programs_in_the_environment(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOL_QEMU", "/opt/qemu")
    assert settings(pytester).qemu == "/opt/qemu"
    assert settings(pytester, "--smol-qemu=/usr/qemu").qemu == "/usr/qemu"
    monkeypatch.setenv("PYTEST_ADDOPTS", "--smol-qemu=/local/qemu")
    assert settings(pytester).qemu == "/local/qemu"


@pytest.mark.parametrize(
    "ini",
    [
        "smol_qemu = ./qemu",
        "addopts = --smol-qemu=./qemu",
        "addopts = --smol-qemu ./qemu",
        "addopts = -o smol_qemu=./qemu",
    ],
)
def test_a_project_names_no_programs(pytester: pytest.Pytester, ini: str) -> None:
    with pytest.raises(SettingError, match=r"smol_qemu to '\./qemu'") as raised:
        settings(pytester, ini=ini)
    assert "--smol-qemu" in (raised.value.remedy or "")


@pytest.mark.parametrize("text", ["0", "33", "-1", "1.5", "much"])
def test_a_wrong_limit_of_output(pytester: pytest.Pytester, text: str) -> None:
    with pytest.raises(SettingError, match="from 1 to 32"):
        settings(pytester, ini=f"smol_output_limit = {text}")


@pytest.mark.parametrize("name", ["keep_console", "snapshot_dir"])
def test_a_directory_is_relative_to_where_it_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On the command line to the current directory, in the ini-file to the project's root."""

    def chosen(*args: str, ini: str = "") -> Path | None:
        found = getattr(settings(pytester, *args, ini=ini), name)
        assert found is None or isinstance(found, Path)
        return found

    monkeypatch.chdir(pytester.mkdir("below"))
    root = pytester.path
    ini, flag = f"smol_{name} = logs", f"--smol-{name.replace('_', '-')}"
    config = [f"--rootdir={root}", f"--config-file={root / 'tox.ini'}"]
    assert chosen() is None
    assert chosen(*config, ini=ini) == root / "logs"
    assert chosen(*config, f"{flag}=other", ini=ini) == root / "below" / "other"
    assert chosen(f"{flag}=/var/logs") == Path("/var/logs")


def test_an_empty_ini_value_is_none(pytester: pytest.Pytester) -> None:
    assert settings(pytester, ini="smol_memory =\nsmol_kernel =") == Settings()


@pytest.mark.parametrize(("name", "text", "expected"), WRONG)
def test_a_wrong_flag_is_named_with_what_is_expected(
    pytester: pytest.Pytester, name: str, text: str, expected: str
) -> None:
    with pytest.raises(SettingError, match=expected) as caught:
        settings(pytester, f"--smol-{name}={text}")
    assert f"--smol-{name}={text!r} is not valid" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(("name", "text", "expected"), WRONG)
def test_a_wrong_ini_value_is_named_with_what_is_expected(
    pytester: pytest.Pytester, name: str, text: str, expected: str
) -> None:
    with pytest.raises(SettingError, match=expected) as caught:
        settings(pytester, ini=f"smol_{name} = {text}")
    assert f"smol_{name} in the ini-file={text!r} is not valid" in caught.value.message
    assert caught.value.remedy


def test_a_good_flag_spares_a_wrong_ini_value(pytester: pytest.Pytester) -> None:
    assert settings(pytester, "--smol-memory=300", ini="smol_memory = much").memory == 300


def test_all_tests_are_meant_only_where_it_is_said(pytester: pytest.Pytester) -> None:
    assert settings(pytester, "--smol").everything
    assert not settings(pytester, "--smol-scope=test").everything


# --- the environment


def test_only_named_variables_reach_a_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.delenv("COLUMNS", raising=False)
    environment = Settings().guest_environment()
    assert environment["TZ"] == "Asia/Tokyo"
    assert "SECRET_TOKEN" not in environment
    assert "COLUMNS" not in environment


def test_ini_adds_variables(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite://")
    monkeypatch.delenv("ABSENT", raising=False)
    found = settings(pytester, ini="smol_env = DATABASE_URL ABSENT")
    assert found.env == (*DEFAULT_ENV, "DATABASE_URL", "ABSENT")
    assert found.guest_environment()["DATABASE_URL"] == "sqlite://"
    assert "ABSENT" not in found.guest_environment()


# --- commands without pytest


def parsed(*argv: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_arguments(parser, ("memory", "kernel", "qemu", "snapshot_dir"))
    return vars(parser.parse_args(argv))


def test_arguments_of_a_command_win_over_variables_and_those_over_defaults() -> None:
    assert Settings.from_arguments(parsed(), {}) == Settings()
    variables = {"SMOL_QEMU": "from-variable"}
    assert Settings.from_arguments(parsed(), variables).qemu == "from-variable"
    argv = ("--smol-qemu=typed", "--smol-memory=1024", "--smol-snapshot-dir=/x", "--smol-kernel=/vmlinuz")
    found = Settings.from_arguments(parsed(*argv), variables)
    assert found == Settings(qemu="typed", memory=1024, snapshot_dir=Path("/x"), kernel="/vmlinuz")


def test_a_wrong_argument_of_a_command() -> None:
    with pytest.raises(SettingError, match="--smol-memory='much' is not valid") as caught:
        Settings.from_arguments(parsed("--smol-memory=much"), {})
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pytest.ini", "[pytest]\nsmol_snapshot_dir = kept\nsmol_memory = 700\nsmol_qemu = ./mine\n"),
        ("tox.ini", "[pytest]\nsmol_snapshot_dir = kept\nsmol_memory = 700\n"),
        ("setup.cfg", "[tool:pytest]\nsmol_snapshot_dir = kept\nsmol_memory = 700\n"),
        (
            "pyproject.toml",
            '[tool.pytest.ini_options]\nsmol_snapshot_dir = "kept"\nsmol_memory = 700\nsmol_qemu = "mine"\n',
        ),
    ],
)
def test_a_command_reads_the_ini_file_of_the_project(tmp_path: Path, file: str, text: str) -> None:
    """But for programs: a project does not choose what the host runs."""
    (tmp_path / file).write_text(text)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    found = Settings.from_arguments(parsed(), {}, below)
    assert found == Settings(snapshot_dir=tmp_path / "kept", memory=700)
    found = Settings.from_arguments(parsed("--smol-snapshot-dir=/x", "--smol-memory=512"), {}, below)
    assert found == Settings(snapshot_dir=Path("/x"), memory=512)


def test_a_command_reads_what_pytest_would(tmp_path: Path) -> None:
    """The first file that has settings of pytest's, looking upwards."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nsmol_memory = 700\n")
    below = tmp_path / "below"
    below.mkdir()
    (below / "setup.cfg").write_text("[metadata]\nname = it\n")
    assert Settings.from_arguments(parsed(), {}, below).memory == 700
    (below / "tox.ini").write_text("[pytest]\nsmol_memory = 800\n")
    assert Settings.from_arguments(parsed(), {}, below).memory == 800
    (below / ".pytest.ini").write_text("")
    assert Settings.from_arguments(parsed(), {}, below) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pytest]\nsmol_memory = much\n", "smol_memory in .*pytest.ini='much' is not valid"),
        ("no section\n", "pytest's ini file cannot be parsed: .*pytest.ini"),
    ],
)
def test_a_wrong_ini_file_of_a_command(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pytest.ini").write_text(text)
    with pytest.raises(SettingError, match=message) as caught:
        Settings.from_arguments(parsed(), {}, tmp_path)
    assert caught.value.remedy
