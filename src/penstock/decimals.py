"""`decimal_div(a, b, scale)`: the quotient of two decimals, exactly, rounded half up to `scale` digits.

DuckDB's own `/` makes a DOUBLE of two decimals. The macro is the same on every connection: the planner's, the engine's,
the oracle's. It takes values with up to ten digits after the point and below 10^18, gives DECIMAL(38,10), to be cast to
what is wanted (which loses nothing when it has `scale` digits or more), and NULL for b = 0.
"""

from __future__ import annotations

_A = "abs(CAST(a AS DECIMAL(38,10)))"
_B = "abs(CAST(b AS DECIMAL(38,10)))"
_UNITS = "CAST({} * 10000000000 AS HUGEINT)"
_QUOTIENT = (
    f"CAST((2 * {_UNITS.format(_A)} * CAST(power(10, scale) AS HUGEINT) + {_UNITS.format(_B)})"
    f" // (2 * {_UNITS.format(_B)}) AS DECIMAL(38,0)) * CAST(power(10, -scale) AS DECIMAL(11,10))"
)
DECIMAL_DIV = (
    "CREATE OR REPLACE TEMP MACRO decimal_div(a, b, scale) AS CASE"
    " WHEN a <> CAST(a AS DECIMAL(38,10)) OR b <> CAST(b AS DECIMAL(38,10)) OR scale NOT BETWEEN 0 AND 10"
    " THEN error('decimal_div takes at most ten digits after the point')"
    f" WHEN b = 0 THEN NULL WHEN (a < 0) <> (b < 0) THEN -({_QUOTIENT}) ELSE {_QUOTIENT} END"
)
