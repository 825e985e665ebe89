# ruff: noqa: INP001 - a program of this folder, in no package
"""What an avatar costs, from your own seconds and your own prices.

    python3 docker/runpod/costs.py --seconds 12.5 --per-day 500 [--prices FILE]

The seconds are yours to measure: `total_s` of the log line `job`, or the last twenty on the status
page of a pod with that GPU.  There is no default, because none was measured on a GPU.  Prices are
those of prices.toml.
"""

from __future__ import annotations

import argparse
import math
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PRICES = Path(__file__).with_name("prices.toml")
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Cost:
    """What one kind of GPU costs.

    Attributes:
        busy: an avatar, when the pods never wait for one.
        always_on: an avatar, when as many pods as are needed run all day.
        pods: how many are needed for so many avatars a day.
        share: of the day for which they work.
    """

    busy: float
    always_on: float
    pods: int
    share: float


def cost(seconds: float, per_hour: float, per_day: int) -> Cost:
    """Compute what an avatar costs.

    Args:
        seconds: that one takes.
        per_hour: price of a pod.
        per_day: how many avatars are made a day, spread evenly.
    """
    pods = math.ceil(per_day * seconds / SECONDS_A_DAY)
    return Cost(
        busy=seconds * per_hour / 3600,
        always_on=pods * 24 * per_hour / per_day,
        pods=pods,
        share=per_day * seconds / (pods * SECONDS_A_DAY),
    )


def table(
    seconds: float, per_day: int, prices: Mapping[str, float], currency: str
) -> Iterator[str]:
    """The costs of every GPU as lines; those without a price are named."""
    yield f"{seconds:g} s an avatar, {per_day} a day:"
    for gpu, per_hour in prices.items():
        if not per_hour:
            yield f"  {gpu}: no price yet; put today's into prices.toml"
            continue
        found = cost(seconds, per_hour, per_day)
        yield (
            f"  {gpu} at {currency}{per_hour:g} an hour: {currency}{found.busy:.4g} an avatar when "
            f"always busy; {currency}{found.always_on:.4g} with {found.pods} "
            f"pod{'s' if found.pods > 1 else ''} always on ({found.share:.0%} of the time at work)"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when no GPU has a price."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=_positive, required=True, help="that one avatar takes")
    parser.add_argument("--per-day", type=_whole, required=True, help="avatars a day")
    parser.add_argument("--prices", type=Path, default=PRICES, help="default: prices.toml here")
    options = parser.parse_args(arguments)
    known = tomllib.loads(options.prices.read_text(encoding="utf-8"))
    prices, currency = known["per_hour"], known["currency"]
    for line in table(options.seconds, options.per_day, prices, currency):
        print(line)  # noqa: T201 - a program's answer
    return 0 if any(prices.values()) else 1


def _positive(text: str) -> float:
    if not (math.isfinite(value := float(text)) and value > 0):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _whole(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
