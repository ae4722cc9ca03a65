"""Names and addresses of the machine itself."""

import socket
from pathlib import Path

import pytest

AT_COLLECTION = socket.gethostbyname(socket.gethostname())


def test_the_name_resolved_before_the_fork():
    assert AT_COLLECTION.startswith("127.")


def test_the_name_resolves():
    assert socket.gethostbyname(socket.gethostname()).startswith("127.")


def test_the_full_name_is_found():
    assert socket.getfqdn() == socket.gethostname()


def test_the_files_have_the_name():
    name = socket.gethostname()
    assert Path("/etc/hostname").read_text() == f"{name}\n"
    assert f"127.0.1.1 {name}\n" in Path("/etc/hosts").read_text()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_localhost_resolves(family, address):
    assert {found[4][0] for found in socket.getaddrinfo("localhost", 80, family)} == {address}


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_server_on_the_loopback_answers(family, address):
    with (
        socket.create_server((address, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
        server.accept()[0] as accepted,
    ):
        accepted.sendall(b"yes")
        assert client.recv(3) == b"yes"


def test_a_test_may_add_names():
    with open("/etc/hosts", "a") as file:
        file.write("127.0.0.7 service.test\n")
    assert socket.gethostbyname("service.test") == "127.0.0.7"
