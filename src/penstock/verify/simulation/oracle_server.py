"""The oracle of `penstock verify` as a process that answers many questions: a spec's path per line in, a JSON line out.

`python -m penstock.verify.simulation.oracle_server`. Like the oracle itself it imports nothing of the planner, the
engines and the runtime.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from penstock.errors import Error
from penstock.verify.oracle import run_oracle
from penstock.verify.spec import OracleSpec


def main() -> int:
    """Answer until the input ends."""
    for line in sys.stdin:
        try:
            run_oracle(OracleSpec.read(Path(line.strip())))
            answer: dict[str, object] = {}
        except Error as problem:
            answer = {"code": problem.code, "text": problem.render()}
        except Exception:  # noqa: BLE001 - told to the simulation, which stops with it
            answer = {"code": "PS-RUN-001", "text": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
