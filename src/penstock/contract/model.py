"""Contracts as pydantic models, read once into a frozen `Schema`.

Only what one vectorised predicate can check is accepted: types, constraints, defaults and SQL row checks. Python code
that runs per record (validators, computed fields, factories) is refused where it is declared, all mistakes of a
class at once. No pydantic validator is ever built: `defer_build` keeps declaring cheap.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import FrameType
from typing import Any, ClassVar

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock.contract.annotations import Refused, SqlType, column_of, json_text
from penstock.contract.schema import Column, ForeignKey, RowCheck, Schema
from penstock.errors import DeclarationError, DeclarationErrors, Error, Where

__all__ = ["Contract", "Field", "SqlType", "field_where", "schema_of"]

_TARGET = re.compile(r"\s*(\w+)\s*\.\s*(?:(\w+)|\(([\w\s,]+)\))\s*\Z")
_EXTRA = {None: "ignore", "ignore": "ignore", "forbid": "dead"}
_FREE_OPTIONS = frozenset({"extra", "defer_build", "title", "frozen", "use_attribute_docstrings"})


@dataclass(frozen=True)
class _Marks:
    """What `Field` says beyond pydantic."""

    pii: bool = False
    references: str = ""


class Contract(BaseModel):
    """Base of all contracts: one field per column.

    Class variables: `__owner__`, `__version__` (texts), `__checks__ = {"name": "SQL condition"}` (NULL passes) and
    `__references__ = {"(ad_id, campaign_id)": "campaigns.(ad_id, campaign_id)"}`.
    `model_config = ConfigDict(extra="forbid")` makes a record with unknown fields dead; they are ignored otherwise.

    Example:
        >>> import penstock as ps
        >>> class Click(ps.Contract):
        ...     user_id: int = ps.Field(ge=0)
        ...     url: str
        >>> ps.schema_of(Click).names
        ('user_id', 'url')
    """

    model_config = ConfigDict(defer_build=True)
    __ps_where__: ClassVar[Where] = Where()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        cls.__ps_where__ = _declared_at()


def Field(  # noqa: N802 - the name that pydantic's users know
    default: Any = PydanticUndefined,
    *,
    ge: float | Decimal | None = None,
    gt: float | Decimal | None = None,
    le: float | Decimal | None = None,
    lt: float | Decimal | None = None,
    multiple_of: float | Decimal | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
    max_digits: int | None = None,
    decimal_places: int | None = None,
    description: str | None = None,
    pii: bool = False,
    references: str = "",
) -> Any:
    """A column's constraints.

    Args:
        default: the value of a record that lacks the field; without it the field is required.
        ge, gt, le, lt, multiple_of: bounds of a number (ge .. lt also of a date or time, as ISO text).
        min_length, max_length: of a text in characters, of bytes in bytes, of a list or dict in elements.
        pattern: a regular expression (RE2) that must be found in the text; anchor it with ^ and $.
        max_digits, decimal_places: of a Decimal; both are needed.
        pii: mask the value in logs, errors, dead letters and lineage.
        references: `"reference.column"` in which the value must be found.

    Example:
        >>> import penstock as ps
        >>> class Click(ps.Contract):
        ...     user_id: int = ps.Field(ge=0, pii=True)
    """
    given: dict[str, Any] = {
        "ge": ge,
        "gt": gt,
        "le": le,
        "lt": lt,
        "multiple_of": multiple_of,
        "min_length": min_length,
        "max_length": max_length,
        "pattern": pattern,
        "max_digits": max_digits,
        "decimal_places": decimal_places,
        "description": description,
    }
    info: FieldInfo = pydantic.Field(default, **{name: value for name, value in given.items() if value is not None})
    if pii or references:
        info = FieldInfo.merge_field_infos(info) if not info.metadata else info
        info.metadata.append(_Marks(pii, references))
    return info


def schema_of(model: type[Contract]) -> Schema:
    """The schema that a contract declares.

    Raises:
        DeclarationErrors: PS-DECL-004 for every field, option or validator that cannot be used, with file and line.

    Example:
        >>> import penstock as ps
        >>> class Price(ps.Contract):
        ...     symbol: str
        ...     price: float | None = None
        >>> [(c.name, c.type, c.nullable) for c in ps.schema_of(Price).columns]
        [('symbol', 'VARCHAR', False), ('price', 'DOUBLE', True)]
    """
    errors = [*_option_errors(model), *_code_errors(model)]
    columns: list[Column] = []
    foreign_keys = list(_class_foreign_keys(model, errors))
    for name, info in _fields(model, errors):
        try:
            column, references = _column(name, info, model)
        except Refused as refused:
            errors.append(_refusal(model, name, refused))
            continue
        columns.append(column)
        if references:
            foreign_keys.extend(_foreign_key(model, name, references, errors))
    if not columns and not errors:
        errors.append(_wrong(model, "", "a contract without fields", "at least one field", "none", ""))
    if errors:
        raise DeclarationErrors(errors)
    checks = tuple(RowCheck(name, sql) for name, sql in _mapping(model, "__checks__").items())
    extra = _EXTRA[model.model_config.get("extra")]
    return Schema(
        model.__name__,
        tuple(columns),
        checks,
        tuple(foreign_keys),
        extra,
        _text(model, "__owner__"),
        _text(model, "__version__"),
    )


def field_where(model: type[BaseModel], field: str) -> Where:
    """The file and line that declare a field (the class's own line where the field cannot be found)."""
    where: Where = getattr(model, "__ps_where__", Where())
    lines = linecache.getlines(where.file)
    pattern = re.compile(rf"(\s+){re.escape(field)}\s*[:=]|\s+def\s+{re.escape(field)}\b")
    for number in range(where.line, len(lines)):
        if pattern.match(lines[number]):
            return Where(where.file, number + 1)
        if number > where.line and lines[number][:1] not in (
            " ",
            "\t",
            "\n",
            "#",
            ")",
            "",
        ):
            break
    return where


def _declared_at() -> Where:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != __name__ and module.split(".", 1)[0] not in ("pydantic", "abc"):
            return Where(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return Where()


def _fields(model: type[Contract], errors: list[Error]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields with their annotations resolved (a name that only exists later is an error, not a crash)."""
    if not getattr(model, "__pydantic_fields_complete__", True):
        try:
            model.model_rebuild(raise_errors=True)
        except (pydantic.errors.PydanticUndefinedAnnotation, NameError) as problem:
            errors.append(
                _wrong(
                    model,
                    "",
                    "an annotation names an unknown type",
                    "types that are defined above",
                    str(problem),
                    "",
                )
            )
            return
        except pydantic.errors.PydanticUserError:
            pass  # pydantic cannot build it; the field's own check below says why, with our words
        except Exception as problem:
            if type(problem).__name__ != "SchemaError":
                raise
    yield from model.__pydantic_fields__.items()


def _column(name: str, info: FieldInfo, model: type[Contract]) -> tuple[Column, str]:
    marks = [item for item in info.metadata if isinstance(item, _Marks)]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    pii = any(mark.pii for mark in marks) or bool(extra.get("pii"))
    references = next((mark.references for mark in marks if mark.references), "")
    if info.default_factory is not None:
        raise Refused(
            "default_factory",
            "a literal default",
            "default_factory",
            "write default=VALUE",
        )
    if info.alias is not None or info.validation_alias is not None or info.serialization_alias is not None:
        raise Refused(
            "alias",
            "the name of the record's field",
            "an alias",
            "name the field as it is in the record",
        )
    if info.discriminator is not None:
        raise Refused(
            "discriminator",
            "one type per field",
            "a tagged union",
            "declare one optional field per case",
        )
    metadata = tuple(item for item in info.metadata if not isinstance(item, _Marks))
    column = column_of(name, info.annotation, metadata, _nested)
    default = "" if info.default is PydanticUndefined else json_text(info.default, column)
    return (
        Column(
            name=name,
            type=column.type,
            nullable=column.nullable,
            rules=column.rules,
            pii=pii,
            description=info.description or "",
            children=column.children,
            default=default if default != "null" else "",
        ),
        references,
    )


def _nested(model: type[BaseModel]) -> tuple[Column, ...]:
    if not issubclass(model, Contract):
        raise Refused(
            model.__name__,
            "a nested Contract",
            "a pydantic model",
            "derive it from penstock.Contract",
        )
    try:
        schema = schema_of(model)
    except DeclarationErrors as errors:
        raise Refused(
            model.__name__,
            "a nested contract that can be used",
            "mistakes",
            errors.render(),
        ) from None
    if schema.checks or schema.foreign_keys or schema.extra != "ignore":
        raise Refused(
            model.__name__,
            "a nested contract of fields alone",
            "__checks__, references or extra='forbid' in a nested contract",
            "put them on the outer contract",
        )
    return schema.columns


def _option_errors(model: type[Contract]) -> Iterator[Error]:
    for option, value in model.model_config.items():
        if option not in _FREE_OPTIONS:
            hint = "only extra is used; values are always strict"
            yield _wrong(
                model,
                "model_config",
                f"model_config {option} has no effect",
                "extra",
                repr(value),
                hint,
            )
    if model.model_config.get("extra") not in _EXTRA:
        got = repr(model.model_config.get("extra"))
        yield _wrong(model, "model_config", "extra is invalid", "'ignore' or 'forbid'", got, "")


def _code_errors(model: type[Contract]) -> Iterator[Error]:
    decorators = model.__pydantic_decorators__
    found: tuple[tuple[str, Mapping[str, object], str], ...] = (
        (
            "field_validator",
            decorators.field_validators,
            "use ps.Field(ge=..., pattern=...) or __checks__",
        ),
        (
            "validator",
            decorators.validators,
            "use ps.Field(ge=..., pattern=...) or __checks__",
        ),
        (
            "model_validator",
            decorators.model_validators,
            '__checks__ = {"name": "SQL condition"} on the class',
        ),
        (
            "root_validator",
            decorators.root_validators,
            '__checks__ = {"name": "SQL condition"} on the class',
        ),
        ("computed_field", decorators.computed_fields, "compute it in a view"),
        (
            "field_serializer",
            decorators.field_serializers,
            "shape the output in a view",
        ),
        (
            "model_serializer",
            decorators.model_serializers,
            "shape the output in a view",
        ),
    )
    for kind, functions, hint in found:
        for function in functions:
            yield _wrong(
                model,
                function,
                f"a {kind} is Python code per record",
                "a rule that SQL can check",
                kind,
                hint,
            )
    own: tuple[str, ...] = ("model_post_init", "__init__", "__new__")
    for name in own:
        if getattr(model, name, None) is not getattr(Contract, name, None):
            yield _wrong(
                model,
                name,
                f"{name} is Python code per record",
                "a rule that SQL can check",
                name,
                "remove it",
            )


def _class_foreign_keys(model: type[Contract], errors: list[Error]) -> Iterator[ForeignKey]:
    for columns, target in _mapping(model, "__references__").items():
        yield from _foreign_key(model, columns, target, errors)


def _foreign_key(model: type[Contract], columns: str, target: str, errors: list[Error]) -> Iterator[ForeignKey]:
    match = _TARGET.match(target)
    mine = _split(columns.strip().strip("()"))
    theirs = _split(match[2] or match[3]) if match else ()
    unknown = [name for name in mine if name not in model.__pydantic_fields__]
    if match is None or len(mine) != len(theirs) or unknown:
        expected = "'reference.column' or 'reference.(a, b)' with as many columns as the fields named"
        errors.append(
            _wrong(
                model,
                columns,
                f"references of {columns} is invalid",
                expected,
                target,
                "",
            )
        )
        return
    yield ForeignKey(mine, match[1], theirs)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _mapping(model: type[Contract], name: str) -> dict[str, str]:
    merged: dict[str, str] = {}
    for base in reversed(model.__mro__):
        value = base.__dict__.get(name, {})
        if isinstance(value, Mapping):
            merged.update({str(key): str(item) for key, item in value.items()})
        elif isinstance(value, Sequence) and not isinstance(value, str):
            merged.update({f"check_{number}": str(item) for number, item in enumerate(value, 1)})
    return merged


def _text(model: type[Contract], name: str) -> str:
    value = getattr(model, name, "")
    return value if isinstance(value, str) else ""


def _refusal(model: type[Contract], field: str, refused: Refused) -> Error:
    message = f"the field cannot be used ({refused.what})"
    return _wrong(model, field, message, refused.expected, refused.got, refused.hint)


def _wrong(model: type[Contract], field: str, message: str, expected: str, got: str, hint: str) -> Error:
    name = f"{model.__name__}.{field}" if field else model.__name__
    where = field_where(model, field) if field else model.__ps_where__
    text = f"contract {name}: {message}"
    return DeclarationError("PS-DECL-004", text, where=where, expected=expected, got=got, hint=hint)
