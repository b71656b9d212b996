"""Targets: which engine runs a pipeline, where its state lies, and which URL each source and sink is bound to.

`penstock.toml` holds them; without it everything runs on DuckDB and the embedded log below `.penstock/`. Secrets are
named in the file as `${NAME}` and read from the environment; what is printed keeps the name, never the value.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.durations import format_duration
from penstock.errors import DeclarationErrors, Error, Where
from penstock.graph import Graph, SourceDecl
from penstock.url import Url

FILE = "penstock.toml"
DEFAULT_TARGET = "local"
ENGINES = ("duckdb", "spark", "flink")
DEFAULT_STATE = ".penstock/state/{pipeline}"
DEFAULT_BINDING = "log:.penstock/log/{name}"

Value = str | int | float | bool
_SECRET = re.compile(r"\$\{(\w+)\}")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


class SettingsError(Error):
    """The settings file, a target or a binding is wrong; nothing was started."""


@dataclass(frozen=True)
class TargetSettings:
    """One `[targets.NAME]` as written. bind is None where the file binds nothing, so that the defaults hold."""

    name: str
    where: Where
    engine: str = "duckdb"
    state: str = DEFAULT_STATE
    bind: Mapping[str, str] | None = None
    engines: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """All targets of a project. folder: where relative paths begin."""

    folder: Path
    targets: Mapping[str, TargetSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A target resolved for one pipeline.

    bindings: `source:NAME` and `sink:NAME` to URLs with secrets filled in. shown: the same with secrets by name, for
    printing. settings: those of the chosen engine.
    """

    name: str
    engine: str
    state: Path
    bindings: Mapping[str, Url] = field(repr=False)
    shown: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Value] = field(default_factory=dict)

    def source(self, name: str) -> Url:
        """The URL that the source is bound to."""
        return self.bindings[f"source:{name}"]

    def sink(self, name: str) -> Url:
        """The URL that the sink is bound to."""
        return self.bindings[f"sink:{name}"]


def load_settings(folder: Path) -> Settings:
    """The targets of `folder`/penstock.toml; the built-in target alone where there is no such file.

    Raises:
        DeclarationErrors: unknown keys and values of the wrong type, each with file and line, all at once.
        SettingsError: PS-CONF-001, the file is not TOML.
    """
    file = folder / FILE
    if not file.is_file():
        return Settings(folder)
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        found = re.search(r"line (\d+), column (\d+)", str(problem))
        where = Where(FILE, int(found[1]), int(found[2])) if found else Where(FILE)
        raise SettingsError(
            "PS-CONF-001", "the settings file is not TOML", where=where, expected="TOML", got=str(problem)
        ) from None
    reader = _Reader(text)
    targets = reader.targets(content)
    if len(reader.errors) == 1:
        raise reader.errors[0]
    if reader.errors:
        raise DeclarationErrors(reader.errors)
    return Settings(folder, targets)


def resolve(
    graph: Graph,
    settings: Settings,
    *,
    target: str | None = None,
    engine: str | None = None,
    state: Path | None = None,
    binds: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Target:
    """The target for one pipeline: `target`, else `local` if declared, else the built-in one.

    Args:
        engine, state: override the target's own.
        binds: `NAME=URL`, `source:NAME=URL` or `sink:NAME=URL`; these win over the file.
        environment: where secrets come from (default: the process's environment).

    Raises:
        SettingsError: PS-CONF-001 (unknown target), PS-CONF-002 (a binding), PS-CONF-003 (a secret is not set).
    """
    chosen = _choose(settings, target)
    name = engine or chosen.engine
    if name not in ENGINES:
        raise SettingsError("PS-CONF-001", "an engine is unknown", expected=", ".join(ENGINES), got=name)
    place = _Place(graph, chosen, os.environ if environment is None else environment)
    shown = place.texts(binds)
    bindings = {key: Url.parse(place.secrets(key, text)) for key, text in shown.items()}
    folder = state or Path(place.fill(chosen.state, pipeline=graph.name))
    return Target(chosen.name, name, settings.folder / folder, bindings, shown, chosen.engines.get(name, {}))


def _choose(settings: Settings, target: str | None) -> TargetSettings:
    found = settings.targets.get(target or DEFAULT_TARGET)
    if found is not None:
        return found
    if target not in (None, DEFAULT_TARGET):
        raise SettingsError(
            "PS-CONF-001",
            "a target is unknown",
            where=Where(FILE) if settings.targets else None,
            expected=", ".join(sorted({DEFAULT_TARGET, *settings.targets})),
            got=str(target),
            hint=f"targets are declared in {FILE} as [targets.{target}]",
        )
    return TargetSettings(DEFAULT_TARGET, Where())


class _Place:
    """One pipeline's names on one target."""

    def __init__(self, graph: Graph, target: TargetSettings, environment: Mapping[str, str]) -> None:
        self._graph = graph
        self._target = target
        self._environment = environment
        self._keys = [f"source:{s.name}" for s in graph.sources] + [f"sink:{s.name}" for s in graph.sinks]

    def texts(self, binds: Sequence[str]) -> dict[str, str]:
        """Every source and sink to the text of its URL, secrets still by name."""
        given = dict(self._target.bind or {})
        texts = {f"source:{s.name}": self._default(s, given) for s in self._graph.sources}
        texts |= {f"sink:{s.name}": self._wildcard(s.name, given) for s in self._graph.sinks}
        # A file may serve several pipelines, so a name of another one in it is no mistake; on the command line it is.
        for name, url in given.items():
            texts |= dict.fromkeys(self._matching(name), url)
        for bind in binds:
            name, separator, url = bind.partition("=")
            keys = self._matching(name)
            if not separator or not keys:
                raise self._unknown(bind, name if separator else "")
            texts |= dict.fromkeys(keys, url)
        missing = [key for key in self._keys if not texts[key]]
        if missing:
            raise SettingsError(
                "PS-CONF-002",
                f"{', '.join(missing)}: no binding",
                where=self._target.where,
                expected=f'NAME = "URL" for each, or "*" = "URL" under [targets.{self._target.name}.bind]',
                got="none",
            )
        return {key: self.fill(texts[key], pipeline=self._graph.name, name=key.partition(":")[2]) for key in self._keys}

    def _default(self, source: SourceDecl, given: Mapping[str, str]) -> str:
        if source.clock is not None:
            return f"clock:{format_duration(source.clock)}"
        if source.default is not None:
            return source.default
        return self._wildcard(source.name, given)

    def _wildcard(self, name: str, given: Mapping[str, str]) -> str:
        return given.get("*", DEFAULT_BINDING if self._target.bind is None else "")

    def _matching(self, name: str) -> list[str]:
        return [key for key in self._keys if name in (key, key.partition(":")[2])]

    def _unknown(self, bind: str, name: str) -> SettingsError:
        return SettingsError(
            "PS-CONF-002",
            f"{name} is no source or sink of {self._graph.name}" if name else "a binding needs a name and a URL",
            expected=", ".join(self._keys) if name else "NAME=URL",
            got=bind,
        )

    def fill(self, text: str, **values: str) -> str:
        """Put the pipeline's and the binding's name into `text`."""

        def replacement(match: re.Match[str]) -> str:
            if text[max(match.start() - 1, 0)] == "$":
                return match[0]
            if match[1] not in values:
                raise SettingsError(
                    "PS-CONF-002",
                    "a placeholder is unknown",
                    where=self._target.where,
                    expected=", ".join(f"{{{name}}}" for name in values) + " or ${NAME_OF_A_SECRET}",
                    got=match[0],
                )
            return values[match[1]]

        return _PLACEHOLDER.sub(replacement, text)

    def secrets(self, key: str, text: str) -> str:
        """Put the environment's values in place of `${NAME}`."""

        def replacement(match: re.Match[str]) -> str:
            value = self._environment.get(match[1])
            if value is None:
                raise SettingsError(
                    "PS-CONF-003",
                    f"{key}: a secret is not set",
                    where=self._target.where,
                    expected=f"the environment variable {match[1]}",
                    got="not set",
                    hint=f"export {match[1]}=...",
                )
            return value

        return _SECRET.sub(replacement, text)


class _Reader:
    """Turns parsed TOML into targets, collecting every mistake with its line."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self.errors: list[Error] = []

    def targets(self, content: Mapping[str, object]) -> dict[str, TargetSettings]:
        for key in content:
            if key != "targets":
                self._wrong(f"the key {key} is unknown", "targets", key, self._line("", key))
        tables = content.get("targets", {})
        if not isinstance(tables, dict):
            self._wrong("targets is no table", "[targets.NAME]", repr(tables), self._line("", "targets"))
            return {}
        return {name: self._target(name, table) for name, table in tables.items()}

    def _target(self, name: str, table: object) -> TargetSettings:
        section = f"targets.{name}"
        where = Where(FILE, self._line(section, ""))
        if not isinstance(table, dict):
            self._wrong(f"target {name} is no table", f"[{section}]", repr(table), where.line)
            return TargetSettings(name, where)
        for key in table:
            if key not in ("engine", "state", "bind", *ENGINES):
                expected = f"engine, state, bind, {', '.join(ENGINES)}"
                self._wrong(f"target {name}: the key {key} is unknown", expected, key, self._line(section, key))
        engine = self._text(section, table, "engine", "duckdb")
        if engine not in ENGINES:
            line = self._line(section, "engine")
            self._wrong(f"target {name}: the engine is unknown", ", ".join(ENGINES), engine, line)
        bind = self._texts(f"{section}.bind", table["bind"]) if "bind" in table else None
        state = self._text(section, table, "state", DEFAULT_STATE)
        engines = {key: self._values(f"{section}.{key}", table[key]) for key in ENGINES if key in table}
        return TargetSettings(name, where, engine, state, bind, engines)

    def _text(self, section: str, table: Mapping[str, object], key: str, default: str) -> str:
        value = table.get(key, default)
        if isinstance(value, str) and value:
            return value
        self._wrong(f"[{section}] {key} is no text", "a text", repr(value), self._line(section, key))
        return default

    def _texts(self, section: str, table: object) -> dict[str, str]:
        if not isinstance(table, dict):
            self._wrong(f"[{section}] is no table", 'NAME = "URL"', repr(table), self._line(section, ""))
            return {}
        return {key: self._text(section, table, key, DEFAULT_BINDING) for key in table}

    def _values(self, section: str, table: object) -> dict[str, Value]:
        if not isinstance(table, dict):
            self._wrong(f"[{section}] is no table", "settings of the engine", repr(table), self._line(section, ""))
            return {}
        values: dict[str, Value] = {}
        for key, value in table.items():
            if isinstance(value, str | int | float | bool):
                values[key] = value
            else:
                self._wrong(f"[{section}] {key}", "a text, number or boolean", repr(value), self._line(section, key))
        return values

    def _line(self, section: str, key: str) -> int:
        """The line of `key` in `section` (of the section's own header for an empty key), 0 where it is not plain."""
        current = ""
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[([^\]]+)\]", line)
            if header:
                current = header[1].replace('"', "").replace(" ", "")
                if not key and current.startswith(section):
                    return number
                continue
            name = line.partition("=")[0].strip().strip("\"'")
            if key and current == section and name == key:
                return number
        return next((n for n, line in enumerate(self._lines, 1) if key and key in line), 0)

    def _wrong(self, message: str, expected: str, got: str, line: int) -> None:
        error = SettingsError("PS-CONF-001", message, where=Where(FILE, line), expected=expected, got=got)
        self.errors.append(error)
