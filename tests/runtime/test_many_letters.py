"""Dead letters by the tens of thousands: told by pages, counted, replayed in epochs that stay small."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import penstock as ps
from penstock.engines.base import LetterQuery
from penstock.runtime.answers import answer
from penstock.runtime.session import Session

SQL = """
CREATE REFERENCE kinds (kind VARCHAR PRIMARY KEY);
CREATE STREAM hits (kind VARCHAR NOT NULL REFERENCES kinds (kind), n BIGINT NOT NULL CHECK (n >= 0));
CREATE VIEW per_kind AS SELECT kind, count(*) AS hits, sum(n) AS total FROM hits GROUP BY kind;
"""
# All of them break a rule; two correction epochs and some more.
UNKNOWN = 20_500
NEGATIVE = 300


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with ps.Pipeline.from_sql(SQL, name="many").open() as session:
        session.replace("kinds", [{"kind": "view"}])
        session.commit()
        session.insert("hits", [{"kind": "swipe", "n": n} for n in range(UNKNOWN)])
        session.commit()
        session.insert("hits", [{"kind": "view", "n": -1 - n} for n in range(NEGATIVE)])
        session.commit()
        yield session


def test_letters_are_told_by_pages(session: Session) -> None:
    state = session._state
    reply = answer(state, {"do": "dlq.ls", "rule": "check_1", "offset": 290, "limit": 100})
    assert reply["total"] == NEGATIVE
    letters = reply["letters"]
    assert isinstance(letters, list)
    assert [json.loads(x["value"])["n"] for x in letters] == [-1 - n for n in range(290, 300)]
    assert answer(state, {"do": "status"})["open_dead_letters"] == UNKNOWN + NEGATIVE


def test_all_of_them_are_judged_again_in_several_epochs(session: Session) -> None:
    state = session._state
    session.replace("kinds", [{"kind": "view"}, {"kind": "swipe"}])
    session.commit()
    epoch = session.progress.epoch
    assert session.replay() == UNKNOWN + NEGATIVE
    assert session.progress.epoch == epoch + 3
    assert session.read("per_kind").to_pylist() == [{"kind": "swipe", "hits": UNKNOWN, "total": sum(range(UNKNOWN))}]
    counts = session.progress.sources["hits"].counts
    assert (counts.accepted, counts.dead, counts.replayed) == (UNKNOWN, NEGATIVE, UNKNOWN)
    assert state.count_dead_letters(LetterQuery(status="replayed")) == UNKNOWN
    # Who was accepted is not asked for again, and a named letter that cannot be accepted stays dead.
    (first,) = state.dead_letters(LetterQuery(rule="check_1"), limit=1)
    assert session.replay([first.id]) == 1
    assert state.count_dead_letters(LetterQuery(status="dead")) == NEGATIVE
    assert answer(state, {"do": "dlq.drop", "rule": "check_1"}) == {"dropped": NEGATIVE}
    assert state.count_dead_letters(LetterQuery(status="dead")) == 0
