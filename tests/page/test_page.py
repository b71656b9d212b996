"""The live page's answers: what is in the state, no more than that, and only to who may ask."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.cli.main import run
from penstock.cli.options import Job, PipelineOptions
from penstock.cli.serve import open_page
from penstock.connectors.log import LogTopic, LogWriter
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import RunError
from penstock.page.server import Page, loopback

PIPELINE = """
CREATE STREAM clicks (
    user_id BIGINT NOT NULL CHECK (user_id >= 0), email VARCHAR PII, kind VARCHAR, at TIMESTAMP NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '5 seconds'
) WITH (state = 'unbounded');
CREATE VIEW per_user AS
    SELECT user_id, email, kind, count(*) AS n, sum(user_id)::HUGEINT * 9007199254740993 AS big
    FROM clicks GROUP BY user_id, email, kind;
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM clicks GROUP BY ALL;
CREATE VIEW some AS SELECT user_id FROM clicks WHERE user_id > 1;
CREATE VIEW twice AS SELECT user_id, n FROM per_user UNION ALL SELECT user_id, n FROM per_user;
CREATE SINK counts FROM per_user;
"""
USERS = 450


def click(user: int, second: int, **more: object) -> bytes:
    at = f"2026-01-01T00:{second // 60:02}:{second % 60:02}"
    row = {"user_id": user, "email": f"user{user}@example.org", "kind": "it's" if user == 7 else "view", "at": at}
    return json.dumps(row | more).encode()


def write(records: list[bytes]) -> None:
    with LogWriter(LogTopic.open(".penstock/log/clicks"), "commit") as writer:
        writer.append(0, records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state that a job has left: some users, two broken records, a late one."""
    before = Path.cwd()
    made = tmp_path_factory.mktemp("page")
    os.chdir(made)
    Path("clicks.sql").write_text(PIPELINE)
    LogTopic.create(Path(".penstock/log/clicks"), 1)
    write([click(user, 60) for user in range(USERS)] + [click(-1, 60), b"{", click(1, 300), click(2, 1)])
    assert run(["run", "clicks.sql", "--once", "--no-flush", "--quiet"]) == 0
    yield made
    os.chdir(before)


def opened(**options: Any) -> Page:
    job: Job = PipelineOptions("clicks.sql", None, None, (), (), None, "text").load()
    return open_page(job, compile_for_duckdb(job.graph, in_memory=False), **options)


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[httpx.Client]:
    with opened() as made, httpx.Client(base_url=made.url, timeout=60) as client:
        yield client


def table(page: httpx.Client, name: str, **asked: object) -> Any:
    reply = page.get(f"/api/table/{name}", params={k: str(v) for k, v in asked.items()})
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(page: httpx.Client, path: str) -> str:
    reply = page.get(path)
    assert reply.status_code == 400, reply.text
    return str(reply.json()["error"]["message"])


def test_the_picture_has_every_item_with_what_it_reads(page: httpx.Client) -> None:
    items = {(i["kind"], i["name"]): i for i in page.get("/api/picture").json()["items"]}
    assert {(k, n): i["reads"] for (k, n), i in items.items()} == {
        ("stream", "clicks"): [],
        ("view", "per_user"): ["clicks"],
        ("view", "per_minute"): ["clicks"],
        ("view", "some"): ["clicks"],
        ("view", "twice"): ["per_user"],
        ("sink", "counts"): ["per_user"],
    }
    assert items["view", "twice"]["layer"] == 2
    assert len({(i["layer"], i["row"]) for i in items.values()}) == len(items)
    assert not items["view", "some"]["kept"]
    assert [c["name"] for c in items["view", "per_user"]["columns"] if c["masked"]] == ["email"]


def test_pages_of_a_table_hold_every_row_once(page: httpx.Client) -> None:
    seen: list[int] = []
    for offset in range(0, USERS, 200):
        found = table(page, "per_user", limit=200, offset=offset)
        assert found["total"] == USERS
        seen += [row[0] for row in found["rows"]]
    assert sorted(seen) == list(range(USERS))
    assert table(page, "per_user", limit=200, offset=10**9)["rows"], "an offset behind the end shows the last page"


def test_rows_are_sorted_searched_and_filtered(page: httpx.Client) -> None:
    first = table(page, "per_user", sort="n", descending="true", limit=3)["rows"]
    assert [(r[0], r[3]) for r in first] == [(1, 2), (2, 2), (0, 1)]
    assert [r[0] for r in table(page, "per_user", search="IT'S")["rows"]] == [7]
    assert [r[0] for r in table(page, "per_user", search="44")["rows"]] == [44]
    assert table(page, "per_user", search="nobody")["total"] == 0
    assert table(page, "per_user", **{"where.user_id": "3"})["total"] == 1
    assert table(page, "per_user", **{"where.user_id": "1 OR TRUE"})["total"] == 0
    assert table(page, "per_user", search="' OR TRUE --")["total"] == 0


def test_integers_that_javascript_would_round_come_as_text(page: httpx.Client) -> None:
    (row,) = table(page, "per_user", **{"where.user_id": "3"})["rows"]
    assert row[4] == str(3 * 9007199254740993)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("per_user?limit=201", "the page cannot be shown"),
        ("per_user?limit=0", "the page cannot be shown"),
        ("per_user?offset=-1", "the page cannot be shown"),
        ("per_user?offset=x", "the page cannot be shown"),
        ("per_user?sort=nothing", "per_user cannot be sorted or filtered by nothing"),
        ("per_user?sort=email", "per_user cannot be sorted or filtered by email"),
        ("per_user?where.no=1", "per_user cannot be sorted or filtered by no"),
        ("some", "the rows of some are not kept: they pass through"),
        ("counts", "there is no view counts"),
    ],
)
def test_what_cannot_be_shown_is_refused(page: httpx.Client, asked: str, says: str) -> None:
    assert refused(page, f"/api/table/{asked}") == says


def test_personal_data_has_names_of_its_own(page: httpx.Client) -> None:
    row = table(page, "per_user", **{"where.user_id": "3"})["rows"][0]
    name = row[1]
    assert name.startswith("•")
    assert table(page, "per_user", **{"where.user_id": "3"})["rows"][0][1] == name
    assert [r[0] for r in table(page, "per_user", **{"where.email": name})["rows"]] == [3]
    assert table(page, "per_user", **{"where.email": "user3@example.org"})["total"] == 0
    assert table(page, "per_user", search="user3@")["total"] == 0
    for path in ("/api/letters", "/api/late"):
        assert "example.org" not in page.get(path).text


def test_personal_data_is_shown_when_it_is_asked_for(folder: Path) -> None:
    with opened(reveal=True) as page, httpx.Client(base_url=page.url, timeout=60) as client:
        assert table(client, "per_user", search="user3@")["rows"][0][1] == "user3@example.org"
        assert "user-1@example.org" in client.get("/api/letters").text
        assert "user2@example.org" in client.get("/api/late").text


def test_dead_letters_are_listed_and_replayed_from_the_page_alone(page: httpx.Client) -> None:
    found = page.get("/api/letters", params={"status": "dead"}).json()
    assert found["total"] == 2
    assert len({x["rule"] for x in found["letters"]}) == 2
    letter = found["letters"][0]
    assert page.get(f"/api/letters/{letter['id']}").json()["reason"] == letter["reason"]
    own = {"origin": str(page.base_url).rstrip("/")}
    asked = {"ids": [letter["id"]]}
    assert page.post("/api/do/dlq.replay", json=asked).status_code == 403, "no origin"
    assert page.post("/api/do/dlq.replay", json=asked, headers={"origin": "http://evil.example"}).status_code == 403
    text = {**own, "content-type": "text/plain"}
    assert page.post("/api/do/dlq.replay", content=json.dumps(asked), headers=text).status_code == 403
    assert page.post("/api/do/stop", json={}, headers=own).status_code == 400
    assert page.post("/api/do/dlq.replay", json=asked, headers=own).json() == {"requested": 1}
    assert page.post("/api/do/dlq.drop", json={"ids": ["nothing"]}, headers=own).status_code == 400
    assert page.get("/api/late").json()["total"] == 1


def test_the_page_may_load_nothing_from_elsewhere(page: httpx.Client) -> None:
    for path in ("/", "/static/main.js", "/api/picture", "/api/table/nothing"):
        headers = page.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert page.get("/static/../server.py").status_code == 404
    static = Path(__file__).parents[2] / "src/penstock/page/static"
    for file in static.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, file.name
        assert "https:" not in text, file.name
        assert "innerHTML" not in text, f"{file.name}: texts are no markup"


def test_only_the_own_name_of_the_machine_is_answered(page: httpx.Client) -> None:
    assert page.get("/api/picture", headers={"host": "example.org"}).status_code == 403
    assert page.get("/api/picture", headers={"host": "localhost:1"}).status_code == 200


def test_other_addresses_need_the_token(folder: Path) -> None:
    with opened(host="0.0.0.0") as page:
        base, _, token = page.url.partition("?token=")
        base = base.replace("0.0.0.0", "127.0.0.1")
        assert len(token) >= 32
        with httpx.Client(base_url=base, timeout=60) as client:
            assert client.get("/api/picture").status_code == 403
            assert client.get("/", params={"token": token[:-1] + "!"}).status_code == 403
            assert client.get("/api/picture", headers={"authorization": f"Bearer {token}"}).status_code == 200
            entered = client.get("/", params={"token": token})
            assert entered.status_code == 303
            assert "httponly" in entered.headers["set-cookie"].lower()
            assert client.get("/api/picture").status_code == 200, "the cookie is enough from here"


def test_a_port_in_use_is_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(RunError) as told:
            opened(port=taken.getsockname()[1])
        assert told.value.code == "PS-RUN-005"


def test_there_must_be_a_state(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "clicks.sql", "--state", str(tmp_path / "none")]) == 2
    assert "PS-STATE-007" in capsys.readouterr().err


def test_the_page_follows_a_job_and_does_not_keep_it_from_starting(folder: Path) -> None:
    with opened() as page, httpx.Client(base_url=page.url, timeout=60) as client:
        before = events(client, lambda told: told["state"] == "stopped")
        assert before["rows"] >= USERS + 4
        write([click(9_000, 400)])
        assert run(["run", "clicks.sql", "--once", "--no-flush", "--quiet"]) == 0
        after = events(client, lambda told: told["state"] == "stopped" and told["rows"] > before["rows"])
        assert after["epoch"] > before["epoch"]
        assert after["sizes"]["g_per_user"] >= USERS
        assert table(client, "per_user", **{"where.user_id": "9000"})["total"] == 1


def events(client: httpx.Client, wanted: Any) -> Any:
    """The first event that is as wanted."""
    until = time.monotonic() + 60
    with client.stream("GET", "/api/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: ") and wanted(told := json.loads(line[6:])):
                return told
            assert time.monotonic() < until
    raise AssertionError("the stream has ended")


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("x.org", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, alone: bool) -> None:
    assert loopback(host) is alone
