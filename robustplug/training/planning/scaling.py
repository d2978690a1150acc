"""A model of an update on many devices: computing, and one exchange of gradients over the links between them.

It says nothing of stragglers, of reading data, or of an exchange that overlaps with computing. The first two
make an update slower than it says, the last faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """The links between devices, as they are assumed.

    Attributes:
        within: bytes per second that a device sends to others of its node.
        between: bytes per second that a node sends to others.
        latency: seconds until a message of no length arrives.
    """

    within: float = 100e9
    between: float = 12.5e9
    latency: float = 20e-6


@dataclass(frozen=True)
class UpdateCost:
    """What an update costs, as it was measured on one device.

    Attributes:
        fixed: seconds, however few rows a device has.
        row: seconds for each row.
        gradients: bytes that the devices exchange in an update.
        memory: bytes that they exchange for each row, of per-sample memories.
    """

    fixed: float
    row: float
    gradients: int
    memory: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """An update on many devices.

    Attributes:
        devices: number of devices.
        rows: rows of each.
        computing, exchange: seconds of each part.
        seconds: seconds of the update.
        efficiency: share of the time of all devices in which rows are computed.
    """

    devices: int
    rows: float
    computing: float
    exchange: float
    seconds: float
    efficiency: float


def fitted(times: dict[int, float]) -> tuple[float, float]:
    """Return the fixed seconds and those for each row of a line through measured updates.

    The line goes through the smallest and the largest; where that has no rising slope, as noise makes it,
    all is attributed to the rows of the largest.

    Args:
        times: seconds by the number of rows, of at least one number.
    """
    few, many = min(times), max(times)
    slope = (times[many] - times[few]) / (many - few) if many > few else 0.0
    fixed = times[few] - few * slope
    return (fixed, slope) if slope > 0 and fixed >= 0 else (0.0, times[many] / many)


def exchange_seconds(size: float, nodes: int, gpus: int, links: Links) -> float:
    """Return the seconds of an all-reduce: rings within the nodes, and one between them.

    A ring of n sends 2 (n − 1) / n of the bytes over each link, in 2 (n − 1) messages.

    Args:
        size: bytes of each device.
        nodes, gpus: number of nodes, and of devices in each.
        links: the links.
    """

    def ring(count: int, speed: float) -> float:
        return 2 * (count - 1) * (size / count / speed + links.latency)

    return ring(gpus, links.within) + ring(nodes, links.between)


def predict(cost: UpdateCost, rows: int, nodes: int, gpus: int, links: Links) -> Prediction:
    """Predict an update of a global batch.

    Args:
        cost: what it costs on one device.
        rows: rows of the global batch.
        nodes, gpus: number of nodes, and of devices in each.
        links: the links between them.
    """
    devices = nodes * gpus
    # The slowest device has the most rows.
    own = math.ceil(rows / devices)
    computing = cost.fixed + cost.row * own
    size = cost.gradients + cost.memory * rows
    exchange = exchange_seconds(size, nodes, gpus, links) if devices > 1 else 0.0
    seconds = computing + exchange
    return Prediction(devices, own, computing, exchange, seconds, cost.row * rows / devices / seconds)


def whole_nodes(devices: int, gpus: int) -> tuple[int, int]:
    """Return the numbers of nodes, and of devices in each, that are nearest to a number of devices.

    Args:
        devices: number of devices.
        gpus: devices of a node, all of which are used as soon as one does not suffice.
    """
    each = min(gpus, devices)
    return max(1, round(devices / each)), each


def breaks(cost: UpdateCost, rows: int, gpus: int, links: Links) -> tuple[int, str]:
    """Return from how many devices on more of them are wasted, and why.

    They are where less than half of their time computes rows, or where some have none.

    Args:
        cost, rows, gpus, links: as for `predict`; nodes have `gpus` devices each.
    """
    nodes, each = (1, 2) if gpus > 1 else (2, 1)
    while (devices := nodes * each) <= rows:
        found = predict(cost, rows, nodes, each, links)
        if found.efficiency < 0.5:
            parts = {"the exchange of gradients": found.exchange, "the fixed part of an update": cost.fixed}
            return devices, f"{max(parts, key=lambda name: parts[name])} takes more time than the rows"
        # Twice as many, first in one node, and then whole nodes.
        nodes, each = (nodes, min(2 * each, gpus)) if each < gpus else (2 * nodes, each)
    return rows + 1, "a device has no row left"
