"""Finding the pipeline that a user names on the command line.

A text is, in this order: a path that ends in `.py` or `.sql` (with `:attribute` for Python), a shipped application's
name, or `module:attribute`. Loading imports the user's module and runs nothing of the pipeline.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from penstock.apps import APPLICATIONS
from penstock.errors import DeclarationError, Error, Where
from penstock.pipeline import Pipeline

_FORMS = "file.py, file.py:attribute, module:attribute, file.sql or the name of an application"


def load_pipeline(text: str) -> Pipeline:
    """The pipeline that `text` names.

    Args:
        text: `file.py`, `file.py:attribute`, `module:attribute`, `file.sql` or the name of a shipped application.

    Raises:
        DeclarationError: PS-DECL-014 when nothing, or more than one pipeline, is found there, or the module fails.
        DeclarationErrors: the mistakes of an SQL file.

    Example:
        >>> load_pipeline("ads").name
        'ads'
    """
    if text in APPLICATIONS:
        text = APPLICATIONS[text]
    path, _, attribute = text.partition(":")
    if path.endswith(".sql"):
        return _from_sql_file(_existing(path))
    if path.endswith(".py"):
        file = _existing(path)
        return _pick(_imported(lambda: _execute(file), str(file)), attribute, str(file))
    if attribute:
        return _pick(_imported(lambda: importlib.import_module(path), path), attribute, path)
    raise _not_found(f"there is no application {text!r}", got=text, hint=_hint_for(text))


def _hint_for(text: str) -> str:
    for suffix in (".py", ".sql"):
        if Path(text + suffix).is_file():
            return f"did you mean {text}{suffix}?"
    return f"applications: {', '.join(sorted(APPLICATIONS))}; `penstock init {text}` makes a pipeline of your own"


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise _not_found("there is no such file", got=path, hint=f"the current folder is {Path.cwd()}")
    return file


def _from_sql_file(file: Path) -> Pipeline:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise _not_found("the file is not UTF-8 text", got=f"byte {problem.start}", where=Where(str(file))) from None
    _make_importable(file.parent)
    name = "".join(character if character.isalnum() else "_" for character in file.stem)
    return Pipeline.from_sql(text, name=name, file=str(file))


def _make_importable(folder: Path) -> None:
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)


def _execute(file: Path) -> ModuleType:
    """Run the file as a module of its own name space, able to import its neighbours."""
    _make_importable(file.parent)
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"_ps_user_{file.stem}_{digest}", file)
    if spec is None or spec.loader is None:
        raise _not_found("the file cannot be imported", got=str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _imported(load: Callable[[], ModuleType], what: str) -> ModuleType:
    try:
        return load()
    except Error:
        raise
    except SyntaxError as problem:
        raise _not_found(
            f"{what} has a syntax error",
            where=Where(problem.filename or what, problem.lineno or 0, problem.offset or 0),
            expected="Python",
            got=problem.msg,
        ) from problem
    except Exception as problem:
        raise _not_found(
            f"{what} cannot be imported",
            where=_place(problem),
            expected="a module that imports without an error",
            got=f"{type(problem).__name__}: {problem}",
        ) from problem


def _place(problem: BaseException) -> Where | None:
    """The innermost line of the traceback that is neither ours nor the import machinery's."""
    here = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(problem.__traceback__)
        if not frame.filename.startswith((here, "<frozen")) and "importlib" not in frame.filename
    ]
    user = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return Where(user[-1].filename, user[-1].lineno or 0) if user else None


def _pick(module: ModuleType, attribute: str, what: str) -> Pipeline:
    found = {name: value for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if attribute:
        value = getattr(module, attribute, None)
        if isinstance(value, Pipeline):
            return value
        raise _not_found(
            f"{what} has no pipeline {attribute}",
            expected=", ".join(found) or "an attribute that holds a penstock.Pipeline",
            got=f"{attribute} is {'missing' if value is None else type(value).__name__}",
        )
    distinct = {id(value): value for value in found.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise _not_found(f"{what} holds no pipeline", expected="pipeline = penstock.Pipeline(...)", got="none")
    raise _not_found(
        f"{what} holds {len(distinct)} pipelines",
        expected="one of " + ", ".join(f"{what}:{name}" for name in found),
        got=what,
    )


def _not_found(
    message: str, *, got: str, expected: str = _FORMS, hint: str = "", where: Where | None = None
) -> DeclarationError:
    return DeclarationError("PS-DECL-014", message, where=where, expected=expected, got=got, hint=hint)
