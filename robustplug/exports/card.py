"""The model card of an exported folder: what the model is, how robust it is, and how to use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.measures import wilson_interval
from ..core.reporting import headlines
from ..core.types import Result
from ..recipe.write import recipe_to_mapping
from ..report.material import Material, read_material
from ..report.tables.measures import measured
from ..report.tables.results import skipped_lines
from ..report.tables.sheets import Cell, Sheet, markdown
from ..report.tables.threats import threat_text
from ..subjects.data.arrays import extremes
from ..subjects.formats.contents import WEIGHTS
from ..subjects.named import component_in
from .writers import of_transformers

if TYPE_CHECKING:
    from .content import Content

CARD = "README.md"
# Tables of the recipe that name no files of this machine.
_SHARED = ("seed", "method", "optimizer", "schedule", "train")


def model_card(content: Content, run: Path) -> str:
    """Return the model card, as Markdown with the header that Hugging Face's hub reads.

    Args:
        content: what is exported.
        run: the run folder; its result.json has the numbers.
    """
    import tomli_w

    recipe = content.recipe
    shared = {key: value for key, value in recipe_to_mapping(recipe).items() if key in _SHARED}
    parts = [
        _header(content),
        f"# {recipe.name}",
        _summary(content),
        "## Robustness",
        *_robustness(read_material(run)),
        "## Use",
        *_use(content),
        "## Training",
        _block("toml", tomli_w.dumps(shared)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _header(content: Content) -> str:
    library = "robustplug" if of_transformers(content.module) is None else "transformers"
    tags = ["robustplug", "adversarial-robustness", *["image-classification"] * (len(content.shape) == 3)]
    return "\n".join(["---", f"library_name: {library}", "tags:", *(f"- {tag}" for tag in tags), "---"])


def _summary(content: Content) -> str:
    recipe, sizes = content.recipe, ", ".join(map(str, content.shape))
    model = recipe.model.name if recipe.model else type(content.module).__name__
    low, high = extremes(content.info.bounds)
    return (
        f"`{model}`, trained with `{recipe.method.name}` on `{recipe.task.name}` by robustplug. The model "
        f"takes inputs (N, {sizes}) in [{low:g}, {high:g}] and returns logits (N, {content.classes}); "
        "normalisation is inside."
    )


def _robustness(material: Material) -> Iterator[str]:
    if material.result is None:
        yield "The run is not finished, so its robustness is not measured."
        return
    yield markdown(_sheet(material.result))
    if material.audit:
        yield f"Audit for gradient masking: grade {material.audit['grade']}, {material.audit['verdict']}."


def _sheet(result: Result) -> Sheet:
    names = [quantity.name for quantity in headlines(result)]
    heads = ("attack", *(names or ("accuracy", "95 % interval")))
    lines: list[tuple[Cell, ...]] = []
    for row in result.attacks:
        if row.skipped:
            more = [Cell("")] * (len(heads) - 2)
            lines.append((Cell(row.name), Cell("invalid" if row.invalid else "skipped"), *more))
            continue
        if names:
            said = (measured(row, name).replace("\n", " ") for name in names)
            lines.append((Cell(row.name), *map(Cell, said)))
            continue
        if row.bound == "none":
            continue
        low, high = wilson_interval(round(row.accuracy * result.samples), result.samples)
        least = "≥ " if row.bound == "lower" else ""
        lines.append((Cell(row.name), Cell(f"{least}{row.accuracy:.1%}"), Cell(f"{low:.1%} to {high:.1%}")))
    notes = [
        f"Threat model: {threat_text(result.threat)}.",
        *(f"{line.rstrip('.')}." for line in skipped_lines(result)),
    ]
    if any(row.chain for row in result.attacks):
        notes.append("Each attack runs on the samples that the rows above it left correct.")
    if names:
        notes.append("Measures are over the samples that the row was run on, with 95 % intervals.")
    return Sheet(f"{result.split} split, {result.samples} samples", heads, tuple(lines), tuple(notes))


def _use(content: Content) -> Iterator[str]:
    inner = of_transformers(content.module)
    if inner is not None:
        name = type(inner).__name__
        yield (
            "The weights are those of the network behind the normalisation, which `preprocessor_config.json` "
            "states: subtract `image_mean` from images in [0, 1], and divide by `image_std`."
        )
        yield _block("python", f'from transformers import {name}\n\nmodel = {name}.from_pretrained(".")')
        assert content.recipe.model is not None
        named = component_in(f"{content.recipe.model.name}:.")
        if named is not None:
            yield _block("bash", f"robustplug evaluate {named}:. --task {content.recipe.task.name}")
        return
    table = content.model_table()
    options = "".join(f", {key}={value!r}" for key, value in table.items() if key != "use")
    yield _block("bash", f"robustplug evaluate . --task {content.recipe.task.name}")
    yield _block(
        "python",
        "import robustplug\n"
        "from safetensors.torch import load_file\n\n"
        f'info = robustplug.build("task", "{content.recipe.task.name}").info\n'
        f'model = robustplug.build("model", "{table["use"]}", info=info{options})\n'
        f'model.load_state_dict(load_file("{WEIGHTS}"))',
    )


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"
