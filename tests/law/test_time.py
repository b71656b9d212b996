"""The law where time matters: final views, watermarks by hand, ends of streams, late rows and their way back."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.law.law import Case, View, check, lawful
from tests.law.world import Event, epochs

_BUCKET = "time_bucket(INTERVAL '10 seconds', at)"


def _final(name: str, sql: str, window: str = "10s", *more: View, below: View | None = None) -> Case:
    return Case(name, (*([below] if below else []), View("q", sql, window, final=True), *more))


STREAM_FINALS = (
    _final("final_merge", f"SELECT {_BUCKET} AS w, g, count(*) AS n, sum(v) AS s FROM s GROUP BY ALL"),
    _final("final_affected", f"SELECT {_BUCKET} AS w, count(DISTINCT k) AS u, max(f) AS m FROM s GROUP BY w"),
    _final("final_having", f"SELECT {_BUCKET} AS w, g, count(*) AS n FROM s GROUP BY 1, 2 HAVING count(*) > 1"),
    _final("final_trunc", "SELECT date_trunc('minute', at) AS w, count(*) AS n FROM s GROUP BY 1", "1m"),
    _final(
        "final_top",
        f"SELECT {_BUCKET} AS w, g, count(*) AS n FROM s GROUP BY 1, 2 "
        "QUALIFY row_number() OVER (PARTITION BY w ORDER BY n DESC, g) <= 2",
    ),
    _final(
        "final_ranks",
        "SELECT w, sum(n) OVER (PARTITION BY w) AS all_n FROM c",
        "10s",
        below=View("c", f"SELECT {_BUCKET} AS w, g, count(*) AS n FROM s GROUP BY ALL", "10s"),
    ),
    _final("final_unselected_key", f"SELECT {_BUCKET} AS w, count(*) AS n FROM s GROUP BY 1, g"),
    _final(
        "views_over_final",
        f"SELECT {_BUCKET} AS w, g, count(*) AS n FROM s GROUP BY ALL",
        "10s",
        View("same", "SELECT * FROM q WHERE n > 1"),
        View("totals", "SELECT g, sum(n) AS n, max(w) AS last FROM q GROUP BY g"),
        View("days", "SELECT date_trunc('day', w) AS day, sum(n) AS n FROM q GROUP BY 1"),
    ),
    Case(
        "final_beside_changes",
        (
            View("base", "SELECT at, g, v FROM s WHERE v IS NOT NULL"),
            View("q", f"SELECT {_BUCKET} AS w, count(*) AS n FROM base GROUP BY 1", "10s", final=True),
            View("r1", f"SELECT {_BUCKET} AS w, count(*) AS n FROM base GROUP BY 1", "10s"),
            View("r2", f"SELECT {_BUCKET} AS w, count(DISTINCT g) AS n FROM base GROUP BY 1", "10s"),
            View("r3", f"SELECT {_BUCKET} AS w, count(*) AS n FROM base GROUP BY 1 ORDER BY n DESC, w LIMIT 2", "10s"),
            View("r4", "SELECT time_bucket(INTERVAL '4 seconds', at) AS w, min(v) AS n FROM s GROUP BY 1", "4s"),
        ),
    ),
)
JOINED_FINALS = (
    _final("final_join", f"SELECT {_BUCKET} AS w, t.a, count(*) AS n FROM s JOIN t ON s.k = t.k GROUP BY 1, 2"),
    _final(
        "final_left_join", f"SELECT {_BUCKET} AS w, t.a, count(*) AS n FROM s LEFT JOIN t ON s.k = t.k GROUP BY 1, 2"
    ),
    _final("final_reference", f"SELECT {_BUCKET} AS w, r.label, sum(v) AS n FROM s JOIN r ON s.k = r.k GROUP BY 1, 2"),
)


@pytest.mark.parametrize("case", STREAM_FINALS, ids=str)
def test_final_views_show_each_window_once_closed(case: Case) -> None:
    """T1, T3, T4, E3: watermarks by hand, ends of streams and late rows applied, in any order."""

    @lawful(8)
    @given(epochs(case.sources, also=("advance", "flush", "apply")))
    def holds(history: list[list[Event]]) -> None:
        check(case, history)

    holds()


@pytest.mark.parametrize("case", JOINED_FINALS, ids=str)
def test_t3_a_closed_window_is_frozen_whatever_its_tables_do(case: Case) -> None:
    @lawful(8)
    @given(epochs(case.sources, also=("advance", "flush")))
    def holds(history: list[list[Event]]) -> None:
        check(case, history)

    holds()


JOINED_WINDOWS = Case(
    "joined_windows",
    (
        View("j", "SELECT s.at, s.v, t.a FROM s LEFT JOIN t ON s.k = t.k"),
        View("inside", f"SELECT {_BUCKET} AS w, t.a, count(*) AS n FROM s JOIN t ON s.k = t.k GROUP BY 1, 2", "10s"),
        View("w", f"SELECT {_BUCKET} AS w, a, count(*) AS n, sum(v) AS v FROM j GROUP BY 1, 2", "10s"),
        View("u", f"SELECT {_BUCKET} AS w, count(DISTINCT a) AS n FROM j GROUP BY 1", "10s"),
        View("x", f"SELECT {_BUCKET} AS w, a, count(*) AS n FROM j GROUP BY 1, 2 ORDER BY ALL LIMIT 3", "10s"),
    ),
)


@lawful(8)
@given(epochs(JOINED_WINDOWS.sources, also=("advance", "apply")))
def test_e3_late_rows_of_joins_come_back_as_the_join_has_them_by_then(history: list[list[Event]]) -> None:
    check(JOINED_WINDOWS, history)
