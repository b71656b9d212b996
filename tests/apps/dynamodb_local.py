"""DynamoDB Local, started for tests; its jars are fetched once, by Maven, into a cache."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

POM = Path(__file__).parent / "dynamodb" / "pom.xml"


def jars() -> Path:
    """The folder with the jars. Skips the test where neither they nor Maven are there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / "dynamodb-local-2.6.1"
    if (cache / "whole").exists():
        return cache
    if shutil.which("mvn") is None:
        pytest.skip("DynamoDB Local needs Maven to fetch it")
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    subprocess.run([*command, f"-DoutputDirectory={cache}"], check=True, timeout=300)
    (cache / "whole").touch()
    return cache


@contextmanager
def dynamodb() -> Iterator[str]:
    """A server with nothing in it, and its URL. It ends with its pipe: also when the test is killed."""
    if shutil.which("java") is None:
        pytest.skip("DynamoDB Local needs Java")
    libraries = jars()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"
    java = ["java", f"-Djava.library.path={libraries}", "-cp", f"{libraries}/*", main, "-inMemory", "-port", str(port)]
    # the shell waits for the end of its input, which comes when this process ends, however it ends
    process = subprocess.Popen(
        ["sh", "-c", '"$@" & cat >/dev/null; kill $!', "sh", *java],
        cwd=libraries,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "DynamoDB Local did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
