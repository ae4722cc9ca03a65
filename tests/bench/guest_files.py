"""How a guest finds its file system: run in one with the directory of the data, prints a line of JSON."""

import json
import os
import subprocess
import sys
import time

#: Modules that import many others.
PACKAGES = ("asyncio", "unittest.mock", "email.mime.multipart", "http.server", "xmlrpc.client", "sqlite3")


def stat_storm(directory: str) -> int:
    """Look at every name below ``directory``; gives how many there are."""
    return sum(1 for path, _, files in os.walk(directory) for name in files if os.lstat(f"{path}/{name}"))


def small_files(directory: str) -> int:
    count = 0
    for path, _, files in os.walk(f"{directory}/small"):
        for name in files:
            with open(f"{path}/{name}", "rb") as file:
                file.read()
            count += 1
    return count


def large_file(directory: str) -> int:
    """Read the large file; gives its size in MB."""
    size = 0
    with open(f"{directory}/large", "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            size += len(data)
    return size >> 20


def imports(directory: str) -> int:
    code = "import " + ", ".join(PACKAGES)
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    return 1


def measure(directory: str) -> dict[str, float]:
    """Operations, files, MB and imports per second."""
    rates = {}
    for work in (stat_storm, small_files, large_file, imports):
        begin = time.perf_counter()
        count = work(directory)
        rates[work.__name__] = count / (time.perf_counter() - begin)
    return rates


if __name__ == "__main__":
    print("SMOL-BENCH " + json.dumps(measure(sys.argv[1])), flush=True)
    os.system("echo o >/proc/sysrq-trigger")
