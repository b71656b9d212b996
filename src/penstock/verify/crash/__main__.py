"""`python -m penstock.verify.crash --kills N --seed S`: the crash harness from the command line.

Exit code 0: nothing lost, nothing doubled, every fail point passed often enough; 3: a problem was found.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from penstock.durations import parse_duration
from penstock.errors import Error
from penstock.verify.crash.ads_scenario import Ads
from penstock.verify.crash.harness import Crashed, Scenario, crash
from penstock.verify.crash.margin_scenario import Margin
from penstock.verify.crash.shop_scenario import Shop

SCENARIOS: Mapping[str, Callable[[Path, int], Scenario]] = {"shop": Shop, "ads": Ads, "margin": Margin}


def main(arguments: list[str]) -> int:
    """Run the harness and print what it saw."""
    parser = argparse.ArgumentParser(prog="python -m penstock.verify.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many kills must land (default 20)")
    parser.add_argument("--for", dest="duration", type=parse_duration, help="stop killing after so long")
    parser.add_argument("--seed", type=int, default=None, help="of kills and producers (default: a fresh one)")
    parser.add_argument("--pipeline", choices=tuple(SCENARIOS), default="shop")
    parser.add_argument("--keep", action="store_true", help="keep the folder, also where all went well")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="penstock-crash-"))
    _say(f"{given.pipeline}, {given.kills} kills, seed {seed}, in {folder}")
    scenario = SCENARIOS[given.pipeline](folder, seed)
    seconds = given.duration.total_seconds() if given.duration is not None else None
    # The programs run in groups of their own, which no signal to this one reaches: leave through `finally`.
    signal.signal(signal.SIGTERM, _leave)
    try:
        crashed = crash(scenario, kills=given.kills, seed=seed, for_s=seconds, tell=_say)
    except Error as problem:
        _say(f"{problem.render()}\nthe folder is kept: {folder}")
        return 1
    _say(report(crashed))
    if crashed.problems:
        _say(f"the folder is kept: {folder}")
        return 3
    if not given.keep:
        shutil.rmtree(folder)
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def report(crashed: Crashed) -> str:
    """What happened, as text: the table of fail points, the counts, the verdict."""
    points = sorted({*crashed.hits, *crashed.kills, *crashed.producer_kills})
    lines = ["fail point                  passed  job killed  producer killed"]
    lines += [
        f"{point:<26}{crashed.hits[point]:>8}{crashed.kills[point]:>12}{crashed.producer_kills[point]:>17}"
        for point in points
    ]
    lines += [f"{what}: {count}" for what, count in crashed.checked.counts.items()]
    undone = ", ".join(f"{count} {what}" for what, count in sorted(crashed.undone.items())) or "nothing"
    lines.append(f"{crashed.power_losses} power losses took away: {undone}")
    lines.append(f"{crashed.total} kills, {crashed.void} void, {crashed.seconds:.0f} s, seed {crashed.seed}")
    lines += [f"WRONG: {problem}" for problem in crashed.problems]
    if not crashed.problems:
        lines.append("nothing lost, nothing doubled")
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
