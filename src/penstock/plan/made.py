"""What compiling a pipeline has made so far: blocks, the relations that queries may read, mistakes.

`blocks` and `relations` move together: a name is in both or in neither, but for a view's own name, which may stand for
the relation of another block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from penstock.errors import DeclarationErrors, Error
from penstock.pipeline import Graph
from penstock.plan.binder import Binder
from penstock.plan.blocks import Block, Relation
from penstock.plan.plan import ViewPlan


@dataclass
class Made:
    """The state of one compilation. relations: by lower-case name; owners: block -> declared view."""

    graph: Graph
    binder: Binder
    blocks: dict[str, Block] = field(default_factory=dict)
    relations: dict[str, Relation] = field(default_factory=dict)
    views: dict[str, ViewPlan] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    errors: list[Error] = field(default_factory=list)

    def add(self, block: Block) -> None:
        """Keep a block, and let queries read its relation."""
        self.blocks[block.relation.name] = block
        self.relations[block.relation.name.lower()] = block.relation

    def drop(self, name: str) -> None:
        """Forget a block that led nowhere."""
        del self.blocks[name]
        self.relations.pop(name.lower(), None)
        self.binder.remove(name)

    def schema(self) -> dict[str, object]:
        """Names and types of all relations, as qualification wants them."""
        return {r.name.lower(): {f.name.lower(): f.type for f in r.fields} for r in self.relations.values()}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the mistakes that the body raises, and go on."""
        try:
            yield
        except DeclarationErrors as problems:
            self.errors.extend(problems.errors)
        except Error as problem:
            self.errors.append(problem)
