"""Generated records for all sources of a pipeline, so that they fit each other.

References come first, for foreign keys are drawn from their rows; then tables, whose keys streams are to meet; then
streams. The same seed gives the same records, whatever they are used for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from penstock.bench.pipeline.disturbance import Disturbance
from penstock.bench.pipeline.generator import KEYS, Recipe, RecordGenerator
from penstock.bench.pipeline.numbers import EPOCH_US
from penstock.contract.schema import Column, Schema
from penstock.graph import Graph, SourceDecl
from penstock.plan.blocks import SourceBlock
from penstock.plan.plan import Plan

_KINDS = ("reference", "table", "stream")
REFERENCE_ROWS = 100


@dataclass(frozen=True)
class DatasetOptions:
    """What is generated. keys: of each table; given: rows of references that are not generated but read.

    index, of: this is generator `index` of `of` that work side by side.
    """

    seed: int = 0
    disturbance: Disturbance = field(default_factory=Disturbance)
    keys: int = KEYS
    reference_rows: int = REFERENCE_ROWS
    index: int = 0
    of: int = 1
    given: Mapping[str, pa.Table] = field(default_factory=dict)


class Dataset:
    """Generators for the sources of a pipeline, clocks left out.

    Raises:
        DeclarationError: PS-BENCH-005, records of a source cannot be generated.
    """

    def __init__(self, plan: Plan, options: DatasetOptions) -> None:
        self.references: dict[str, pa.Table] = dict(options.given)
        self.generators: dict[str, RecordGenerator] = {}
        self._pools: dict[str, pa.Array] = {}
        blocks = {b.source.name: b for b in plan.sources if b.source.clock is None}
        for block in sorted(blocks.values(), key=lambda b: _KINDS.index(b.source.kind)):
            self._add(block, plan.graph, options)

    def _add(self, block: SourceBlock, graph: Graph, options: DatasetOptions) -> None:
        source = block.source
        is_reference = source.kind == "reference"
        recipe = Recipe(
            _as_referred_to(source, graph) if is_reference else source,
            block.relation.event,
            tuple((c.name, c.sql) for c in source.schema.checks),
            self._pools,
            self.references,
            Disturbance() if is_reference else options.disturbance,
            options.reference_rows if is_reference else options.keys,
            options.seed,
            0 if is_reference else options.index,
            1 if is_reference else options.of,
        )
        generator = RecordGenerator(recipe)
        self.generators[source.name] = generator
        if is_reference and source.name not in self.references:
            self.references[source.name] = _reference_rows(generator, options.reference_rows)
        rows = self.references[source.name] if is_reference else generator.key_rows
        for name in source.key:
            values = pa.chunked_array(rows.column(name)).combine_chunks() if len(rows) else None
            if values is not None:
                singular = source.name.removesuffix("s")
                for pool in (name, f"{source.name}_{name}", f"{singular}_{name}"):
                    self._pools.setdefault(pool.lower(), values)

    def close(self) -> None:
        for generator in self.generators.values():
            generator.close()


def _reference_rows(generator: RecordGenerator, count: int) -> pa.Table:
    """The rows of a reference: its keys once each, or as many rows as are wanted where it has no key."""
    keys = generator.key_rows
    rows = generator.table(np.full(len(keys) if generator.source.key else count, EPOCH_US, np.int64))
    for name in keys.column_names:
        rows = rows.set_column(rows.column_names.index(name), name, keys.column(name))
    return rows


def _as_referred_to(source: SourceDecl, graph: Graph) -> SourceDecl:
    """The reference with the rules of the columns that refer to it as well: else they could not take its values."""
    columns = {column.name.lower(): column for column in source.schema.columns}
    for other in graph.sources:
        for key in other.schema.foreign_keys:
            if key.reference == source.name:
                for mine, theirs in zip(key.columns, key.reference_columns, strict=True):
                    found = other.schema.column(mine)
                    target = columns[theirs.lower()]
                    if found is not None and found.type == target.type:
                        columns[theirs.lower()] = _stricter(target, found)
    schema: Schema = replace(source.schema, columns=tuple(columns.values()))
    return replace(source, schema=schema)


def _stricter(column: Column, other: Column) -> Column:
    more = tuple(rule for rule in other.rules if rule not in column.rules)
    return replace(column, nullable=False, rules=column.rules + more)
