"""The zip of the Lambda function: the handler and the modules of Penstock that it imports, and nothing else.

The same source gives the same bytes. boto3 is part of Lambda's Python.
"""

from __future__ import annotations

import ast
import zipfile
from importlib.util import find_spec
from pathlib import Path

from penstock.storage.files import temporary_name

HANDLER = "penstock.apps.margin.lambda_handler.handler"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_EMPTY = b'"""A part of Penstock."""\n'


def package_lambda(path: Path) -> list[str]:
    """Write the zip, and give the names of the modules in it."""
    modules = _closure(HANDLER.rpartition(".")[0])
    content = {f"{name.replace('.', '/')}.py": source for name, source in modules.items()}
    for name in modules:
        # packages as such bring what the whole of Penstock needs: here they are only folders
        for parent in _parents(name):
            content[f"{parent.replace('.', '/')}/__init__.py"] = _EMPTY
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content[name])
    temporary.replace(path)
    return sorted(modules)


def _closure(first: str) -> dict[str, bytes]:
    """The module and all of Penstock that it imports, by name."""
    found: dict[str, bytes] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        found[name] = Path(spec.origin).read_bytes()
        waiting += _imports(found[name])
    return found


def _imports(source: bytes) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penstock"):
            module = str(node.module)
            inner = [f"{module}.{alias.name}" for alias in node.names]
            is_package = (spec := find_spec(module)) is not None and spec.submodule_search_locations is not None
            names += inner if is_package else [module]
    return names


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
