"""Who may ask the page, and how the browser is told to treat it."""

from __future__ import annotations

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "penstock_token"
MAX_BODY = 1 << 20
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """The checks before anything is answered. token: None where only this machine can ask.

    Example:
        >>> Guard(None, "127.0.0.1").names("localhost:80"), Guard(None, "127.0.0.1").names("example.org")
        (True, False)
    """

    def __init__(self, token: str | None, host: str) -> None:
        self._token = token
        self._host = host

    def asgi(self, app: ASGIApp) -> ASGIApp:
        """The application behind these checks."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            headers = Headers(scope=scope)
            why = self.why_not(scope["method"], headers, scope["query_string"].decode("latin-1"))
            if why is not None:
                refusal = JSONResponse({"error": {"message": why}}, status_code=403, headers=_HEADERS)
                await refusal(scope, receive, send)
                return

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(_HEADERS)
                await send(message)

            await app(scope, receive, sending)

        return guarded

    def why_not(self, method: str, headers: Headers, query: str) -> str | None:
        """Why the request is refused, None where it is not."""
        host = headers.get("host", "")
        if self._token is None and not self.names(host):
            return "this page is for this machine, under its own name"
        if self._token is not None and not self._has_token(headers, query):
            return "the token is missing or wrong: use the address that the command printed"
        if method in ("GET", "HEAD"):
            return None
        if method != "POST" or not headers.get("content-type", "").startswith("application/json"):
            return "send JSON by POST"
        if urlsplit(headers.get("origin", "")).netloc != host:
            return "only the page itself may ask for this"
        if not headers.get("content-length", "").isdigit() or int(headers["content-length"]) > MAX_BODY:
            return "the request is too long"
        return None

    def names(self, host: str) -> bool:
        """Whether a Host header names this machine's loopback, or the address that is listened on."""
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", self._host):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _has_token(self, headers: Headers, query: str) -> bool:
        assert self._token is not None
        given = [*parse_qs(query).get("token", [])[:1], headers.get("authorization", "").removeprefix("Bearer ")]
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None:
            given.append(cookie.value)
        return any(hmac.compare_digest(g.encode(), self._token.encode()) for g in given)
