"""torch.export archives that could run code are refused before torch reads them."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustplug.errors import RunError
from robustplug.subjects.formats.archive import _GUARDS, _OPERATORS, _SIZES, check_archive
from robustplug.subjects.loading import load_target

from .models import INFO, bare, close
from .test_bad_files import Boom, rewritten

Programs = Callable[..., Path]


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def edited(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    """Change the program of an archive."""

    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        program = json.loads(data)
        change(program)
        return json.dumps(program).encode()

    return edit


def refuses(programs: Programs, tmp_path: Path, change: Callable[[str, bytes], bytes], message: str) -> None:
    path = rewritten(programs("free.pt2"), tmp_path / "a.pt2", change)
    with pytest.raises(RunError, match=message) as caught:
        load_target(path, INFO)
    assert "is refused" in str(caught.value)
    assert "could run code" in str(caught.value)


def test_what_torch_writes_is_accepted(programs: Programs, tmp_path: Path) -> None:
    path = rewritten(programs("free.pt2"), tmp_path / "a.pt2", lambda _, data: data)
    close(load_target(path, INFO).module, bare())


def test_pickled_sample_inputs(programs: Programs, tmp_path: Path) -> None:
    boom = Boom()
    boom.ran = tmp_path / "ran"
    data = pickled(((boom,), {}))
    refuses(
        programs, tmp_path, lambda name, old: data if name.endswith("sample_inputs/model.pt") else old,
        "sample_inputs/model.pt contains pickled",
    )  # fmt: skip
    assert not boom.ran.exists()


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_tensors(kind: str, programs: Programs, tmp_path: Path) -> None:
    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith(f"model_{kind}_config.json"):
            return data
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps({"config": {"a": entry}}).encode()

    refuses(programs, tmp_path, edit, "pickled Python objects")


def test_compiled_code(programs: Programs, tmp_path: Path) -> None:
    path = rewritten(programs("free.pt2"), tmp_path / "a.pt2", lambda _, data: data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("free/data/aotinductor/model/a.wrapper.so", b"\x7fELF")
    with pytest.raises(RunError, match="compiled code"):
        check_archive(path)


def nodes(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"]


def size(program: Any, text: str) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    sizes = next(v["sizes"] for v in values.values() if v["sizes"] and "as_expr" in v["sizes"][0])
    sizes[0]["as_expr"]["expr_str"] = text


EDITS: dict[str, tuple[Callable[[Any], None], str]] = {
    "operator": (lambda p: nodes(p)[0].update(target="torch.hub.os.system"), "graph calls"),
    "size": (lambda p: size(p, "__import__('os').mkdir('ran')"), "as a size"),
    "guard": (lambda p: p.update(guards_code=["__import__('os').mkdir('ran') or True"]), "Python code"),
    "name": (lambda p: nodes(p)[0].update(name="a=__import__('os')"), "as a name"),
    "parameter": (
        lambda p: p["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
            parameter_name='a"); import os #'
        ),
        "as a name",
    ),
    "container": (
        lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec='[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'
        ),
        "other than tuples",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_code_in_the_program(what: str, programs: Programs, tmp_path: Path) -> None:
    change, message = EDITS[what]
    refuses(programs, tmp_path, edited(change), message)


def test_a_damaged_program(programs: Programs, tmp_path: Path) -> None:
    for name in ("models/model.json", "model_weights_config.json"):
        for junk in (b"{", b"\xff\xfe", b'{"config": [1]}'):
            path = rewritten(
                programs("free.pt2"),
                tmp_path / "a.pt2",
                lambda part, data, name=name, junk=junk: junk if part.endswith(name) else data,  # type: ignore[misc]
            )
            with pytest.raises(RunError, match="damaged|cannot be loaded"):
                load_target(path, INFO)


ALLOWED = [
    (_SIZES, "s77"),
    (_SIZES, "3*s0 + 1"),
    (_SIZES, "Min(Integer(768), Mul(Integer(768), Symbol('s77', positive=True, integer=True)))"),
    (_SIZES, "FloorDiv(s0 - 1, 2) >= 0.5"),
    (_GUARDS, "L['x'].size()[0] > 3"),
    (_GUARDS, "L['x'].size()[0] % 2 == 0 and not L['y'].size()[1] == 5"),
    (_OPERATORS, "torch.ops.aten._native_batch_norm_legit.no_training"),
    (_OPERATORS, "torch.ops.higher_order.wrap_with_set_grad_enabled"),
    (_OPERATORS, "_operator.getitem"),
    (_OPERATORS, "torch.sym_max"),
]
REFUSED = [
    (_SIZES, "__import__('os')"),
    (_SIZES, "s77.__class__"),
    (_SIZES, "sympify('1')"),
    (_SIZES, "Function('f')"),
    (_SIZES, "[].append"),
    (_GUARDS, "L['x'].foo()"),
    (_GUARDS, "exit()"),
    (_GUARDS, "L['x' + exit()]"),
    (_OPERATORS, "torch.ops.load_library"),
    (_OPERATORS, "torch.ops.aten.__class__.x"),
    (_OPERATORS, "torch.load"),
    (_OPERATORS, "_operator.attrgetter"),
    (_OPERATORS, "_operator.call"),
    (_OPERATORS, "math.__loader__"),
    (_OPERATORS, "#extension:op"),
    (_OPERATORS, "os.system"),
]


@pytest.mark.parametrize(("pattern", "text"), ALLOWED)
def test_allowed(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.fullmatch(text)


@pytest.mark.parametrize(("pattern", "text"), REFUSED)
def test_refused(pattern: re.Pattern[str], text: str) -> None:
    assert not pattern.fullmatch(text)


def test_long_strings_take_no_long_time() -> None:
    started = time.process_time()
    for pattern in (_SIZES, _GUARDS, _OPERATORS):
        for part in ("s11", "1", "(", "A(", "L['x']", ".size()[1]", "torch.ops.aten.a"):
            assert not pattern.fullmatch(part * 5000 + "'")
    assert time.process_time() - started < 1


def test_the_old_format(tmp_path: Path) -> None:
    # As torch 2.6 wrote it.
    path = tmp_path / "a.pt2"
    boom = Boom()
    boom.ran = tmp_path / "ran"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", pickled({"a": boom}))
        archive.writestr("serialized_constants.pt", pickled({}))
        archive.writestr("serialized_example_inputs.pt", b"")
    with pytest.raises(RunError, match="serialized_state_dict.pt contains pickled"):
        load_target(path, INFO)
    assert not boom.ran.exists()
