"""Write a module as a file of each format; normalisation is inside, and the batch size is free."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..core.modules import Normalized
from ..errors import RunError
from ..subjects.formats.contents import CONFIG, STATES, WEIGHTS, first_line
from .content import Content

PREPROCESSING = "preprocessor_config.json"


class Format(NamedTuple):
    """Hold how a format is written.

    Attributes:
        suffix: suffix of its files; "" for a folder.
        write: function that writes a file or fills an empty folder.
    """

    suffix: str
    write: Callable[[Content, Path], None]


def write_onnx(content: Content, path: Path) -> None:
    """Write an ONNX file with the input "inputs" (N, …) and the output "logits" (N, classes).

    Raises:
        RunError: a package is missing, or ONNX cannot represent the module.
    """
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise RunError(
                f'an ONNX file needs {package} ({first_line(error)}): pip install "robustplug[onnx]"'
            ) from error
    with _exporting("onnx"):
        program: Any = torch.onnx.export(
            content.module,
            (content.example,),
            dynamo=True,
            dynamic_shapes=_free(),
            input_names=["inputs"],
            output_names=["logits"],
            verbose=False,
        )
        program.save(path, external_data=False)


def write_program(content: Content, path: Path) -> None:
    """Write a program of torch.export.

    Raises:
        RunError: torch.export cannot represent the module.
    """
    with _exporting("torch-export"):
        program = torch.export.export(content.module, (content.example,), dynamic_shapes=_free())
        # A file object, since torch warns about names that do not end in .pt2.
        with path.open("wb") as file:
            torch.export.save(program, file)


def write_weights(content: Content, path: Path) -> None:
    """Write the state dict as safetensors; the metadata state the model component and its options.

    Raises:
        RunError: the model was given from Python.
    """
    from safetensors.torch import save

    state = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in content.module.state_dict().items()}
    metadata = {"format": "pt", STATES: json.dumps(content.statement())}
    path.write_bytes(save(state, metadata))


def write_folder(content: Content, folder: Path) -> None:
    """Fill a folder with config.json and model.safetensors, as models on Hugging Face's hub have them.

    A model of transformers is saved by itself, and the normalisation in front of it is stated in
    preprocessor_config.json. config.json of another model states the component and its options.

    Raises:
        RunError: the model was given from Python.
    """
    inner = of_transformers(content.module)
    if inner is None:
        write_weights(content, folder / WEIGHTS)
        kind = type(content.module).__name__
        config = {"model_type": STATES, "architectures": [kind], STATES: content.statement()}
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        return
    inner.save_pretrained(folder, safe_serialization=True)
    norm = next((part for part in content.module.modules() if isinstance(part, Normalized)), None)
    stated: dict[str, Any] = {"do_resize": False, "do_rescale": True, "rescale_factor": 1 / 255}
    if norm is None:
        stated["do_normalize"] = False
    else:
        mean, std = norm.mean.flatten().tolist(), norm.std.flatten().tolist()
        stated |= {"do_normalize": True, "image_mean": mean, "image_std": std}
    (folder / PREPROCESSING).write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")


def of_transformers(module: nn.Module) -> Any:
    """Return the model of transformers in a module; None if there is none."""
    return next((part for part in module.modules() if callable(getattr(part, "save_pretrained", None))), None)


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", write_onnx),
    "torch-export": Format(".pt2", write_program),
    "safetensors": Format(".safetensors", write_weights),
    "huggingface": Format("", write_folder),
}


def _free() -> Any:
    return ({0: torch.export.Dim("batch")},)


@contextlib.contextmanager
def _exporting(name: str) -> Iterator[None]:
    """Silence torch's exporters, and name what they cannot export.

    Raises:
        RunError: the block fails for any reason other than the disk.
    """
    loggers = [logging.getLogger(each) for each in ("torch.export", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # the exporters raise a class of their own for each failure
        raise RunError(
            f"the model cannot be exported as {name}: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
