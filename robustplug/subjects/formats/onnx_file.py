"""ONNX files, run by onnxruntime as black boxes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import RunError
from .adapter import Opened, Sizes
from .contents import first_line
from .programs import check_shape, fits

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
}
_ERRORS_ONLY = 3
_CHANNELS_LAST = (
    "its input is (N, H, W, C), channels last: images are permuted from (N, C, H, W) in front of it"
)


def open_onnx(path: Path, shape: tuple[int, ...], device: torch.device) -> Opened:
    """Load an ONNX file into an onnxruntime session, on a GPU if device and package allow it.

    Args:
        path: the file.
        shape: shape of the task's images (C, H, W). Where the file takes (H, W, C), they are permuted.
        device: device of the evaluation.

    Raises:
        RunError: onnxruntime is not installed, the file cannot be loaded, or its inputs are of another kind.
    """
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RunError(
            f'{path} needs onnxruntime ({first_line(error)}): pip install "robustplug[onnx]"'
        ) from error
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(
            str(path), sess_options=options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises a different class for each failure
        raise RunError(
            f"onnxruntime cannot load the ONNX file {path}: {first_line(error)}; export the model again"
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise RunError(f"{path} takes {len(inputs)} inputs ({names}), but it must take only the images")
    (images,) = inputs
    if images.type not in _DTYPES:
        raise RunError(
            f"{path} takes {images.type}, not floating-point images in [0, 1]: export the model without the "
            "conversion of its inputs"
        )
    # Dynamic sizes are names or None, and some exporters write -1 or 0.
    sizes = [size if isinstance(size, int) and size > 0 else None for size in images.shape]
    last = len(shape) == 3 and not fits(sizes, shape) and fits(sizes, (*shape[1:], shape[0]))
    if not last:
        check_shape(str(path), sizes, shape)
    name, dtype = images.name, _DTYPES[images.type]

    def call(x: Tensor) -> Any:
        x = x.permute(0, 2, 3, 1) if last else x
        outputs = session.run(None, {name: x.to("cpu", dtype).contiguous().numpy()})
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    fixed = sizes[0]
    batches = Sizes() if fixed is None else Sizes(fixed, fixed)
    facts = {"providers": list(session.get_providers()), **({"layout": "NHWC"} if last else {})}
    return Opened(call, "onnx", str(path), facts, batches, notes=[_CHANNELS_LAST] * last)
