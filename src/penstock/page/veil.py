"""Names in place of personal data: the same value has the same name as long as the page is served, and no longer.

So rows can be told apart and followed from table to table without anybody's data being shown. A name is made with a
secret of this process; what it stands for is remembered here for the values that were shown last.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict

KEPT = 100_000
MARK = "•"


class Veil:
    """Gives values names, and finds values by them.

    Example:
        >>> veil = Veil()
        >>> veil.value(veil.name("a@b.c"))
        'a@b.c'
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._secret = secrets.token_bytes(32)
        self._kept = kept
        self._known: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def name(self, value: object) -> str:
        """The name of a value."""
        text = str(value)
        name = MARK + hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:12]
        with self._lock:
            self._known[name] = text
            self._known.move_to_end(name)
            if len(self._known) > self._kept:
                self._known.popitem(last=False)
        return name

    def value(self, name: str) -> str | None:
        """What a name stands for, as text; None when it is not known (any more)."""
        with self._lock:
            return self._known.get(name)
