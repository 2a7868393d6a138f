"""Archives that run code when torch reads them, and do not when we do."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_lite.errors import InputError
from robustbench_lite.models import load_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Change = Callable[[str, bytes], bytes]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def torch_pickle(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)).eval()


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.pt2"
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(net(), (X,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("script") / "net.ts"
    torch.jit.trace(net(), X).save(str(path))
    return path


def rewrite(source: Path, target: Path, change: Change, **more: bytes) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            inner = name.partition("/")[2]
            new.writestr(f"m/{inner}", change(inner, old.read(name)))
        for name, body in more.items():
            new.writestr(f"m/{name}", body)


def in_json(member: str, change: Callable[[dict], object]) -> Change:
    def changed(name: str, body: bytes) -> bytes:
        if name != member:
            return body
        value = json.loads(body)
        change(value)
        return json.dumps(value).encode()

    return changed


def touch(path: str) -> str:
    return f"__import__('pathlib').Path('{path}').touch()"


def sample_inputs(path: str) -> Change:
    trap = torch_pickle((Trap(path),))
    return lambda name, body: trap if name == "data/sample_inputs/model.pt" else body


def sizes(path: str) -> Change:
    def change(model: dict) -> None:
        for value in model["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = touch(path)

    return in_json("models/model.json", change)


def guards(path: str) -> Change:
    return in_json("models/model.json", lambda m: m.update(guards_code=[f"{touch(path)} is None"]))


def pickled_weight(path: str) -> Change:
    trap, config = torch_pickle(Trap(path)), "data/weights/model_weights_config.json"

    def change(payload: dict) -> None:
        next(iter(payload["config"].values()))["use_pickle"] = True

    def changed(name: str, body: bytes) -> bytes:
        return trap if name == "data/weights/weight_0" else in_json(config, change)(name, body)

    return changed


# What torch.export.load runs by itself; what stays of it for us: True if the program still loads.
RUN = {sample_inputs: True, guards: True, sizes: False, pickled_weight: False}


def load_with_torch(source: str, path: Path) -> None:
    """As a user of torch would, whatever comes of it."""
    with suppress(Exception):
        read = torch.jit.load if source == "torchscript" else torch.export.load
        program = read(path)
        (program if source == "torchscript" else program.module())(X)


@pytest.mark.parametrize("trap", RUN)
def test_what_torch_runs_when_it_reads_an_export_is_not_run(export, tmp_path, trap):
    sentinel, hostile = tmp_path / "sentinel", tmp_path / "hostile.pt2"
    rewrite(export, hostile, trap(str(sentinel)))
    if RUN[trap]:
        expected = load_model(f"exported:{export}")(X)
        assert torch.equal(load_model(f"exported:{hostile}")(X), expected)
    else:
        with pytest.raises(InputError, match=r"may run code when it is read \(.*torch.export"):
            load_model(f"exported:{hostile}")
    assert not sentinel.exists()
    load_with_torch("exported", hostile)
    assert sentinel.exists(), "the trap is none: it says nothing that it stayed shut"


def node(**fields: object) -> Callable[[dict], object]:
    return lambda model: model["graph_module"]["graph"]["nodes"][0].update(fields)


def program(key: str, value: object) -> Callable[[dict], object]:
    return lambda model: model["graph_module"]["graph"].update({key: value})


def signature(**fields: object) -> Callable[[dict], object]:
    return lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(fields)


TUPLE_OF = '[1, {"type": "%s", "context": "null", "children_spec": []}]'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (node(target="torch.os.system"), "it calls 'torch.os.system'"),
        (node(target="torch.ops.aten.from_file.default"), "it calls 'torch.ops.aten.from_file"),
        (node(target="torch.ops.aten.save.default"), "it calls 'torch.ops.aten.save"),
        (node(target="torch.ops.debugprims.load_tensor.default"), "it calls 'torch.ops.debug"),
        (node(target="torch.ops.higher_order.cond"), "it calls"),
        (node(target="_operator.methodcaller"), "it calls"),
        (node(target="#ns:name"), "it calls"),
        (node(name="x; import os"), "it names 'x; import os'"),
        (node(outputs=[{"as_tensor": {"name": "a.b"}}]), "it names 'a.b'"),
        (node(inputs=[{"name": "x", "arg": {"as_string": "a b"}}]), "it holds 'a b'"),
        (
            node(inputs=[{"name": "x", "arg": {"as_operator": "torch.os"}}]),
            "it holds 'as_operator'",
        ),
        (program("custom_obj_values", {"x y": {}}), "it holds 'x y'"),
        (signature(forward_arg_names=["x=print()"]), "it names 'x=print()'"),
        (signature(in_spec=TUPLE_OF % "os.Path"), "it takes 'os.Path'"),
    ],
)
def test_a_program_of_anything_else_than_tensors_and_operators_is_refused(
    export, tmp_path, change, told
):
    hostile = tmp_path / "hostile.pt2"
    rewrite(export, hostile, in_json("models/model.json", change))
    with pytest.raises(InputError) as error:
        load_model(f"exported:{hostile}")
    assert told in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "Symbol('s0').func",
        "[1]",
        "lambda: 1",
        "s0 if s1 else s2",
        "Symbol(**s0)",
        "9!",
    ],
)
def test_sizes_are_sums_and_nothing_else(export, tmp_path, text):
    def change(model: dict) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        next(iter(values.values()))["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}

    hostile = tmp_path / "hostile.pt2"
    rewrite(export, hostile, in_json("models/model.json", change))
    with pytest.raises(InputError, match="it computes"):
        load_model(f"exported:{hostile}")


def test_a_second_member_of_the_same_name_is_refused(export, tmp_path):
    hostile = tmp_path / "hostile.pt2"
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewrite(export, hostile, lambda name, body: body, **{"models/model.json": b"{}"})
    with pytest.raises(InputError, match="no archive of one program"):
        load_model(f"exported:{hostile}")


def test_libraries_and_other_members_are_not_opened(export, tmp_path):
    hostile = tmp_path / "hostile.pt2"
    library = {"data/aotinductor/model/net.so": b"\x7fELF", "models/other.json": b"{"}
    rewrite(export, hostile, lambda name, body: body, **library)
    expected = load_model(f"exported:{export}")(X)
    assert torch.equal(load_model(f"exported:{hostile}")(X), expected)


def test_a_pickle_in_a_script_is_not_run(script, tmp_path):
    sentinel, hostile = tmp_path / "sentinel", tmp_path / "hostile.ts"
    trap = pickle.dumps(Trap(str(sentinel)), 2)
    for member in ("data.pkl", "constants.pkl"):
        rewrite(script, hostile, lambda n, body, member=member: trap if n == member else body)
        with pytest.raises(InputError, match=r"cannot be read .*torch\.jit\.trace"):
            load_model(f"torchscript:{hostile}")
        assert not sentinel.exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('_0 = torch.save(1, "{path}")', "'save'"),
        ('_0 = ops.aten.save(x, "{path}")', "'save'"),
        ('_0 = torch.from_file("{path}", True, 8)', "'from_file'"),
        ('_0 = ops.image.write_file("{path}", x)', "'image'"),
        ("_0 = __torch__.torch.classes.aoti.Runner.make()", "'aoti'"),
    ],
)
def test_a_script_that_reaches_for_files_is_refused(script, tmp_path, line, told):
    sentinel, hostile = tmp_path / "sentinel", tmp_path / "hostile.ts"

    def change(name: str, body: bytes) -> bytes:
        if not name.endswith("container.py") and "container/" not in name:
            return body
        code = line.format(path=sentinel).encode()
        return body.replace(b"-> Tensor:\n", b"-> Tensor:\n    " + code + b"\n")

    rewrite(script, hostile, change)
    with pytest.raises(InputError) as error:
        load_model(f"torchscript:{hostile}")
    assert f"its program uses {told}" in str(error.value)
    assert not sentinel.exists()
    if "torch.save" in line:
        load_with_torch("torchscript", hostile)
        assert sentinel.exists(), "the trap is none: it says nothing that it stayed shut"
