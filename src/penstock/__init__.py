"""Penstock: declare sources, contracts, views and sinks once; the answer is the same however they run.

Names are loaded when they are first used, so that `import penstock` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.contract.model import Contract as Contract
    from penstock.contract.model import Field as Field
    from penstock.contract.model import SqlType as SqlType
    from penstock.errors import ConnectorError as ConnectorError
    from penstock.errors import DataError as DataError
    from penstock.errors import DeclarationError as DeclarationError
    from penstock.errors import DeclarationErrors as DeclarationErrors
    from penstock.errors import Error as Error
    from penstock.errors import RunError as RunError
    from penstock.errors import StateError as StateError
    from penstock.errors import Unsupported as Unsupported
    from penstock.errors import VerificationError as VerificationError
    from penstock.functions import function as function
    from penstock.pipeline import Pipeline as Pipeline
    from penstock.steps import Change as Change
    from penstock.steps import Step as Step
    from penstock.steps import Timer as Timer

__version__ = "0.1.0"

_HOMES = {
    "Contract": "penstock.contract.model",
    "Field": "penstock.contract.model",
    "SqlType": "penstock.contract.model",
    "Change": "penstock.steps",
    "Step": "penstock.steps",
    "function": "penstock.functions",
    "Timer": "penstock.steps",
    "Pipeline": "penstock.pipeline",
    "ConnectorError": "penstock.errors",
    "DataError": "penstock.errors",
    "DeclarationError": "penstock.errors",
    "DeclarationErrors": "penstock.errors",
    "Error": "penstock.errors",
    "RunError": "penstock.errors",
    "StateError": "penstock.errors",
    "Unsupported": "penstock.errors",
    "VerificationError": "penstock.errors",
}

__all__ = [
    "Change",
    "ConnectorError",
    "Contract",
    "DataError",
    "DeclarationError",
    "DeclarationErrors",
    "Error",
    "Field",
    "Pipeline",
    "RunError",
    "SqlType",
    "StateError",
    "Step",
    "Timer",
    "Unsupported",
    "VerificationError",
    "function",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
