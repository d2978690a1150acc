"""robustplug plan."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..echo import echo
from ..evaluation.options import Finite

# Entries of an input that no data have.
_LARGEST = 2**31


_COUNT, _ABOVE = click.IntRange(min=1), Finite(min=0, min_open=True)


def _shape(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,18}", part) for part in parts):
        raise click.BadParameter("write the sizes of an input: 3,224,224")
    if math.prod(map(int, parts)) > _LARGEST:
        raise click.BadParameter(f"no input has more than {_LARGEST} numbers")
    return tuple(map(int, parts))


@click.command()
@click.argument("recipe")
@click.option("--nodes", type=_COUNT, default=1, show_default=True, help="Number of nodes.")
@click.option("--gpus", type=_COUNT, default=1, show_default=True, help="Devices of a node.")
@click.option("--price", type=_ABOVE, help="Price of a device for an hour; the cost is shown with it.")
@click.option("--faster", type=_ABOVE, default=1.0, help="Speed of a device, as a multiple of this one's.")
@click.option("--within", type=_ABOVE, default=100.0, show_default=True, help="GB/s within a node.")
@click.option("--between", type=_ABOVE, default=12.5, show_default=True, help="GB/s between nodes.")
@click.option("--reached", type=Finite(0, 1, min_open=True), default=0.9, help="Share of the speed.")
@click.option("--seconds", type=_ABOVE, default=60.0, show_default=True, help="Time of the measurement.")
@click.option("--shape", callback=_shape, metavar="C,H,W", help="Take random data of this shape instead.")
@click.option("--classes", type=_COUNT, default=1000, show_default=True, help="Classes of such data.")
@click.option("--samples", type=_COUNT, default=1_281_167, show_default=True, help="Samples of such data.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write JSON.")
def plan(
    recipe: str,
    nodes: int,
    gpus: int,
    price: float | None,
    faster: float,
    within: float,
    between: float,
    reached: float,
    seconds: float,
    shape: tuple[int, ...] | None,
    classes: int,
    samples: int,
    overrides: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Estimate what a training takes on other machines.

    A few updates are measured here, with fewer rows if the time does not suffice; a model says the rest, and
    the output says what was measured and what is assumed. RECIPE is as for train.

    \b
    robustplug plan iaat-imagenet --nodes 8 --gpus 8 --shape 3,224,224
    """
    from ...runs.folder import write_json, writing
    from ...training.planning.plan import Asked
    from ...training.planning.plan import plan as make_plan
    from ...training.planning.scaling import Links

    links = Links(within * 1e9, between * 1e9)
    stand_in = None if shape is None else (shape, classes, samples)
    asked = Asked(nodes, gpus, links, faster, reached, price, seconds, stand_in)
    body = json.loads(json.dumps(make_plan(recipe, overrides, asked)))
    for line in lines(body):
        echo(line)
    if json_file is not None:
        with writing(f"the plan {json_file}"):
            json_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(json_file, body)


def lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a plan."""
    devices, hours = plan["nodes"] * plan["gpus"], plan["hours"]
    yield f"{plan['recipe']} on {plan['nodes']} nodes with {plan['gpus']} devices each"
    passes, update = plan["passes"], plan["update"]
    each = f"{passes['forwards_per_sample']:.1f} forwards, {passes['backwards_per_sample']:.1f} backwards"
    most = "at most " if plan["batch_size"] % devices else ""
    named = {
        "batch": f"{plan['batch_size']} rows, {most}{plan['rows']} on a device",
        "updates": f"{plan['updates']:,} in {plan['epochs']} epochs",
        "passes": f"{each} a sample and epoch, {passes['total']:.3g} in all",
        "an update": f"{update['seconds']:.3g} s: computing {update['computing']:.3g} s, exchange "
        f"{update['exchange']:.3g} s",
        "training": f"{_time(hours['training'])}, {plan['efficiency']:.0%} of it computes rows",
        "validation": "unknown" if hours["validation"] is None else _time(hours["validation"]),
        "device hours": f"{plan['device_hours']:,.1f} on {devices} devices",
        "memory": _memory(plan["memory"]),
        "checkpoint": _size(plan["checkpoint_bytes"]),
    }
    if plan["cost"] is not None:
        named["cost"] = f"{plan['cost']:,.2f}, in the unit of --price"
    for name, text in named.items():
        yield f"  {name:13} {text}"
    yield f"  {'devices':>13}  {'same batch':>22}  {'same rows on each':>22}"
    for row in plan["scaling"]["table"]:
        yield f"  {row['devices']:13}  {_step(row['strong']):>22}  {_step(row['weak']):>22}"
    scaling = plan["scaling"]
    yield f"With this batch, more devices are wasted from {scaling['breaks_at']} on: {scaling['why']}."
    yield from plan["how"]


def _step(found: dict[str, Any] | None) -> str:
    return (
        "a device without rows" if found is None else f"{found['seconds']:.3g} s, {found['efficiency']:.0%}"
    )


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _memory(memory: dict[str, Any]) -> str:
    if memory["bytes"] is None:
        return f"{_size(memory['state'])} and what an update needs, which cannot be measured here"
    return f"{_size(memory['bytes'])} on a device, {_size(memory['state'])} of it whatever its rows"


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
