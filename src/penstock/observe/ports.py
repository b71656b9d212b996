"""What a server of this machine says when it cannot have its port."""

from __future__ import annotations

import errno

from penstock.errors import RunError


def port_refused(what: str, expected: str, host: str, port: int, problem: OSError | OverflowError) -> RunError:
    """The error PS-RUN-005. what: is to be served; problem: why the address cannot be listened on."""
    in_use = isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE
    return RunError(
        "PS-RUN-005",
        f"{what} cannot be served",
        expected=expected,
        got=f"{host}:{port} is in use" if in_use else f"{host}:{port}: {problem}",
        hint="choose another port, or 0 for any free one",
    )
