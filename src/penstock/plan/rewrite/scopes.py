"""Which names a query sees: tables and their aliases, columns of queries around it, CTEs that hide other names.

Invariant after `separate`: no alias is known twice on the way from a query down to a query inside it, so that a column
says which place it belongs to by its alias alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp


def places_of(select: exp.Select) -> list[exp.Expr]:
    """What stands in the FROM clause, left to right."""
    found = [select.args["from_"].this] if select.args.get("from_") else []
    found += [join.this for join in select.args.get("joins") or []]
    return found + list(select.args.get("laterals") or [])


def aliases_of(select: exp.Select) -> set[str]:
    return {place.alias_or_name.lower() for place in places_of(select)}


def free_columns(query: exp.Expr) -> list[exp.Column]:
    """The columns in `query` that belong to places outside of it."""
    found: list[exp.Column] = []

    def visit(node: exp.Expr, bound: frozenset[str]) -> None:
        if isinstance(node, exp.Column):
            if node.table and node.table.lower() not in bound:
                found.append(node)
            return
        if isinstance(node, exp.Select):
            inner = bound | aliases_of(node)
            derived = [id(p) for p in places_of(node) if not isinstance(p, exp.Lateral)]
            for child in _parts(node):
                visit(child, bound if id(child) in derived else inner)
            return
        for child in node.iter_expressions():
            visit(child, bound)

    visit(query, frozenset())
    return found


def _parts(select: exp.Select) -> Iterator[exp.Expr]:
    """The parts of a SELECT; the places of its FROM clause each on their own."""
    for child in select.iter_expressions():
        if isinstance(child, exp.From | exp.Join):
            yield from child.iter_expressions()
        else:
            yield child


def fresh(tree: exp.Expr, word: str) -> str:
    """An alias that nothing in the tree is called by."""
    root = tree.root()
    used = {i.name.lower() for i in root.find_all(exp.Identifier)}
    return next(name for n in range(1, len(used) + 2) if (name := f"{word}{n}") not in used)


def separate(tree: exp.Query) -> None:
    """Give every place of an inner query an alias of its own, where a query around it has that alias too."""

    def visit(node: exp.Expr, around: set[str]) -> None:
        if isinstance(node, exp.Select):
            for place in places_of(node):
                name = place.alias_or_name.lower()
                if name and name in around:
                    _rename_alias(node, place, name, fresh(tree, f"{name}_"))
            around = around | aliases_of(node)
        for child in list(node.iter_expressions()):
            visit(child, around)

    visit(tree, set())


def _rename_alias(select: exp.Select, place: exp.Expr, old: str, new: str) -> None:
    alias = place.args.get("alias")
    if isinstance(alias, exp.TableAlias):
        alias.set("this", exp.to_identifier(new, quoted=True))
    else:
        place.set("alias", exp.TableAlias(this=exp.to_identifier(new, quoted=True)))
    places = {id(p) for p in places_of(select) if not isinstance(p, exp.Lateral)}

    def visit(node: exp.Expr) -> None:
        if id(node) in places:
            return
        if isinstance(node, exp.Column) and node.table.lower() == old:
            node.set("table", exp.to_identifier(new, quoted=True))
            return
        hidden = isinstance(node, exp.Select) and node is not select and old in aliases_of(node)
        for child in list(node.iter_expressions()) if not hidden else []:
            visit(child)

    visit(select)


def tables_in_sight(tree: exp.Expr, name: str) -> list[exp.Table]:
    """The tables of that name in the tree, but for those that a CTE in it stands for."""
    found: list[exp.Table] = []

    def visit(node: exp.Expr) -> None:
        if isinstance(node, exp.Table) and node.name.lower() == name.lower() and not node.args.get("db"):
            found.append(node)
        with_ = node.args.get("with_")
        ctes = list(with_.expressions) if with_ is not None else []
        hidden = next((n for n, cte in enumerate(ctes) if cte.alias.lower() == name.lower()), None)
        if hidden is not None:
            # A CTE of that name hides it from what comes after, and from itself where it is recursive.
            for cte in ctes[: hidden if with_ is not None and with_.args.get("recursive") else hidden + 1]:
                visit(cte.this)
            return
        for child in node.iter_expressions():
            visit(child)

    visit(tree)
    return found


def relations_read(tree: exp.Expr) -> tuple[str, ...]:
    """The names that the tree reads from outside, as written."""
    names = dict.fromkeys(t.name for t in tree.find_all(exp.Table) if t.name and not t.args.get("db"))
    return tuple(name for name in names if tables_in_sight(tree, name))
