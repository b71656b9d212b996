"""Virtual environments for peers, made once in the user's cache and found again without a network.

An environment belongs to exact versions and one Python: its folder is named by a digest of both. It counts only with
the file that is written last, so that a broken attempt is made again; two processes that want the same one take turns.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import DeclarationError, RunError

READY = "ready.json"
SETUP = "penstock bench peers --setup"
JAVA_AT_LEAST = 17
TAIL_LINES = 12
Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """One peer's packages.

    requirements: exact ones, as pip takes them. pythons: the versions of Python that they are made for, the one that
    runs Penstock is taken if it is among them. java: whether a Java of `JAVA_AT_LEAST` or newer is needed.
    """

    name: str
    requirements: tuple[str, ...]
    pythons: tuple[tuple[int, int], ...]
    java: bool = False
    megabytes: int = 0

    @property
    def folder(self) -> Path:
        """Where it is or would be."""
        what = json.dumps([*self.requirements, sorted(self.pythons)])
        version = "{}.{}".format(*self._version())
        return cache_folder() / f"{self.name}-{version}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        return (self.folder / READY).is_file() and self.python.exists()

    def demand(self) -> None:
        """Raise DeclarationError PS-BENCH-008 unless the peer can run now."""
        if self.java:
            java_home()
        if not self.ready:
            raise DeclarationError(
                "PS-BENCH-008",
                f"the environment of {self.name} has not been set up",
                expected=f"{', '.join(self.requirements)} in {self.folder}",
                got="nothing there",
                hint=f"{SETUP} {self.name} makes it (about {self.megabytes} MB to download)",
            )

    def set_up(self, say: Say = lambda line: None) -> None:
        """Make it unless it is there; `say` hears what pip says.

        Raises:
            DeclarationError: PS-BENCH-008, no fitting Python or Java here.
            RunError: PS-BENCH-004, pip failed.
        """
        if self.java:
            java_home()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder.with_suffix(".lock")):
            if self.ready:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            say(f"{self.name}: a virtual environment")
            self._call([self._interpreter(), "-m", "venv", str(self.folder)], say)
            self._call([str(self.python), "-m", "pip", "install", "--progress-bar=off", *self.requirements], say)
            (self.folder / READY).write_text(json.dumps({"requirements": self.requirements}), encoding="utf-8")

    def _version(self) -> tuple[int, int]:
        here = (sys.version_info.major, sys.version_info.minor)
        return here if here in self.pythons else max(self.pythons)

    def _interpreter(self) -> str:
        version = self._version()
        if version == (sys.version_info.major, sys.version_info.minor):
            return sys.executable
        name = "python{}.{}".format(*version)
        found = shutil.which(name)
        if found is None:
            raise DeclarationError(
                "PS-BENCH-008",
                f"{self.requirements[0]} does not run on this Python",
                expected=f"{name} on the PATH",
                got="none",
                hint=f"install {name}, or leave {self.name} out with --peers",
            )
        return found

    def _call(self, command: list[str], say: Say) -> None:
        lines: list[str] = []
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                say(f"{self.name}: {lines[-1]}")
        if process.returncode != 0:
            raise RunError(
                "PS-BENCH-004",
                f"the environment of {self.name} could not be made",
                expected="exit code 0 of " + " ".join(command),
                got="\n".join([f"exit code {process.returncode}", *lines[-TAIL_LINES:]]),
                hint="a network is needed once; without one leave the peer out with --peers",
            )


def cache_folder() -> Path:
    """`penstock/peers` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "peers"


def java_home() -> Path:
    """The home of the Java of JAVA_HOME, else of the PATH.

    Raises:
        DeclarationError: PS-BENCH-008, there is none, or it is too old.
    """
    given = os.environ.get("JAVA_HOME")
    program = str(Path(given, "bin", "java")) if given else shutil.which("java")
    try:
        said = subprocess.run([program or "java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError) as problem:
        raise _no_java(f"{program or 'none on the PATH'}: {problem}") from None
    # 1.8.0 is Java 8.
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None or int(found[1]) < JAVA_AT_LEAST:
        raise _no_java(said.splitlines()[0] if said else "a Java that does not tell its version")
    assert program is not None
    return Path(program).resolve().parent.parent


def _no_java(got: str) -> DeclarationError:
    return DeclarationError(
        "PS-BENCH-008",
        "there is no Java that Spark and Flink can run on",
        expected=f"Java {JAVA_AT_LEAST} or newer by JAVA_HOME or on the PATH",
        got=got,
        hint="install a JDK (on Debian: apt install openjdk-17-jre-headless), or choose --peers polars,duckdb",
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the lock file; waits for whoever has it."""
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
