"""Put pip into the environment that runs this, for a Python that has neither pip nor ensurepip.

Reads the simple index that PIP_INDEX_URL or pip's configuration names (the public one by default), takes the newest
pip wheel, checks its hash and lets pip install itself from it. Only the standard library is used.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path
from urllib.parse import urldefrag, urljoin
from urllib.request import urlopen

WHEEL = re.compile(r"/pip-(\d+(?:\.\d+)*)-py3-none-any\.whl$")


def configured(option: str, default: str = "") -> str:
    """The value of a pip option: from the environment, else from pip's configuration files, else `default`."""
    files = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"]
    files += [Path(os.environ["PIP_CONFIG_FILE"])] if os.environ.get("PIP_CONFIG_FILE") else []
    parser = configparser.RawConfigParser()
    parser.read(files)
    value = parser.get("global", option, fallback=default)
    return os.environ.get("PIP_" + option.upper().replace("-", "_"), value)


def newest_wheel(page: str, base: str) -> tuple[str, str]:
    """The URL of the newest pip wheel of an index page, and the SHA-256 that the index states (may be empty)."""
    found: dict[tuple[int, ...], tuple[str, str]] = {}
    for href in re.findall(r"""href=["']([^"']+)["']""", page):
        url, fragment = urldefrag(urljoin(base, unescape(href)))
        match = WHEEL.search(url)
        if match:
            version = tuple(int(part) for part in match[1].split("."))
            found[version] = (url, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "")
    if not found:
        raise SystemExit("penstock: the package index lists no pip wheel; install python3-venv or python3-pip")
    return found[max(found)]


def main() -> None:
    index = configured("index-url", "https://pypi.org/simple").rstrip("/") + "/pip/"
    context = ssl.create_default_context(cafile=configured("cert") or None)
    with urlopen(index, timeout=60, context=context) as answer:
        url, digest = newest_wheel(answer.read().decode(), index)
    with urlopen(url, timeout=60, context=context) as answer:
        content = answer.read()
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise SystemExit("penstock: the pip wheel does not have the hash that the index states")
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / url.rpartition("/")[2]
        wheel.write_bytes(content)
        command = [sys.executable, f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
