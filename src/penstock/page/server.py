"""The page over HTTP: files, JSON, and one stream of events.

Who may ask: on a loopback address anyone on this machine, under a loopback name (a page of somewhere else that points
its own name here is refused); on any other address who has the token. What changes something must come from the page
itself, as JSON. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from penstock.errors import DataError, Error
from penstock.observe.ports import port_refused
from penstock.page.access import COOKIE, Guard
from penstock.page.picture import Picture
from penstock.page.pulse import Pulse
from penstock.page.tables import MAX_ROWS, Ask, Wanted, read_page
from penstock.page.veil import Veil
from penstock.pipeline import Graph
from penstock.runtime.masking import masked_columns, masked_letter, masked_rows

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
# How soon an open page hears of a new sample.
HEAR_S = 0.2
CLOSE_S = 3.0


class Page:
    """A running page; close it, or use it in a `with` block.

    Args:
        ask: asks the state, whether a job runs on it or not.
        picture: what is shown of the pipeline.
        host, port: where to listen; port 0 takes a free one.

    Raises:
        RunError: PS-RUN-005, the port cannot be used.
    """

    def __init__(
        self,
        graph: Graph,
        picture: Picture,
        ask: Ask,
        folder: Path,
        *,
        host: str = HOST,
        port: int = 0,
        reveal: bool = False,
    ) -> None:
        self._graph = graph
        self._picture = picture
        self._ask = ask
        self._reveal = reveal
        self._veil = Veil()
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        token = None if loopback(host) else secrets.token_urlsafe(24)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/" + (f"?token={token}" if token else "")
        self._guard = Guard(token, host)
        self._pulse = Pulse(ask, folder)
        config = uvicorn.Config(self._application(), log_level="warning", access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="page-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.should_exit = True
        self._pulse.close()
        self._thread.join(timeout=CLOSE_S)
        # Somebody is still being answered: they see the connection end.
        self._server.force_exit = True
        self._thread.join(timeout=CLOSE_S)
        self._socket.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _application(self) -> Starlette:
        routes = [
            Route("/", self._index),
            Route("/api/picture", self._show_picture),
            Route("/api/history", self._history),
            Route("/api/events", self._events),
            Route("/api/table/{name}", self._table),
            Route("/api/letters", self._letters),
            Route("/api/letters/{id}", self._letter),
            Route("/api/late", self._late),
            Route("/api/do/{verb}", self._do, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(self._guard.asgi)],
            exception_handlers={Error: _refused},
        )

    # -- what is shown -------------------------------------------------------------------------------------------------

    def _index(self, request: Request) -> Response:
        if "token" in request.query_params:
            # The address bar and the history keep no token.
            reply: Response = RedirectResponse("/", status_code=303)
            reply.set_cookie(COOKIE, request.query_params["token"], httponly=True, samesite="strict")
            return reply
        return Response((STATIC / "index.html").read_text(encoding="utf-8"), media_type="text/html")

    def _show_picture(self, request: Request) -> Response:
        return JSONResponse(self._picture.to_dict())

    def _history(self, request: Request) -> Response:
        return JSONResponse(list(self._pulse.history))

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(
            self._beats(request), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _beats(self, request: Request) -> AsyncIterator[str]:
        seen = -1
        while not self._server.should_exit and not await request.is_disconnected():
            if self._pulse.number != seen:
                seen = self._pulse.number
                yield f"data: {json.dumps(self._pulse.latest)}\n\n"
            await asyncio.sleep(HEAR_S)

    def _table(self, request: Request) -> Response:
        asked = request.query_params
        wanted = Wanted(
            request.path_params["name"],
            _integer(asked.get("offset", "0")),
            _integer(asked.get("limit", "50")),
            asked.get("sort", ""),
            asked.get("descending") == "true",
            asked.get("search", "").strip(),
            tuple((k.removeprefix("where."), v) for k, v in asked.multi_items() if k.startswith("where.")),
        )
        return JSONResponse(read_page(self._ask, self._picture, wanted, self._veil))

    def _letters(self, request: Request) -> Response:
        asked = request.query_params
        offset = max(0, _integer(asked.get("offset", "0")))
        reply: Any = self._ask(
            {
                "do": "dlq.ls",
                "source": asked.get("source") or None,
                "status": asked.get("status") or None,
                "offset": offset,
                "limit": MAX_ROWS,
            }
        )
        letters = [self._masked(x) for x in reply["letters"]]
        return JSONResponse({"total": reply["total"], "offset": offset, "letters": letters})

    def _letter(self, request: Request) -> Response:
        reply: Any = self._ask({"do": "dlq.show", "id": request.path_params["id"]})
        return JSONResponse(self._masked(reply["letter"]))

    def _masked(self, letter: dict[str, Any]) -> dict[str, Any]:
        return masked_letter(self._graph, letter, reveal=self._reveal)

    def _late(self, request: Request) -> Response:
        reply: Any = self._ask({"do": "late.ls", "source": request.query_params.get("source") or None})
        hidden = frozenset[str]() if self._reveal else masked_columns(self._graph, ("stream",))
        rows = masked_rows(reply["columns"], reply["rows"][:MAX_ROWS], hidden)
        return JSONResponse({**reply, "rows": rows})

    # -- what is done --------------------------------------------------------------------------------------------------

    async def _do(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb not in ("dlq.replay", "dlq.drop", "late.apply"):
            raise DataError(
                "PS-DATA-002", "the page does nothing of that name", expected="replay, drop or apply", got=verb
            )
        given = await request.json()
        reply = await run_in_threadpool(self._ask, {**given, "do": verb})
        self._pulse.again()
        return JSONResponse(reply)


def loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(64)
    except (OSError, OverflowError) as problem:
        made.close()
        expected = "an address of this machine and a free port from 0 to 65535"
        raise port_refused("the page", expected, host, port, problem) from None
    return made


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError("PS-DATA-002", "the page cannot be shown", expected="a whole number", got=text[:40]) from None


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Error)
    return JSONResponse({"error": problem.to_dict()}, status_code=400 if problem.code.startswith("PS-DATA") else 503)
