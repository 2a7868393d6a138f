"""ONNX files that are something else or lie, and graphs as today's exporters write them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_lite.errors import InputError
from robustbench_lite.models import load_model, load_with_profile

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2torch")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(16, 6)).astype(np.float32)
X = torch.from_numpy(RANDOM.random((5, 1, 4, 4), dtype=np.float32))
FLAT = helper.make_node("Flatten", ["x"], ["rows"])
LINEAR = (FLAT, helper.make_node("MatMul", ["rows", "w"], ["logits"]))


def model(
    *after,
    opset=18,
    output="out",
    shape=("n", 1, 4, 4),
    kind=TensorProto.FLOAT,
    inputs=("x",),
    rank=2,
    constants=None,
    before=LINEAR,
):
    graph = helper.make_graph(
        [*before, *after],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ("a", "b", "c", "d")[:rank])],
        [numpy_helper.from_array(v, k) for k, v in ({"w": WEIGHTS} | (constants or {})).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(kind, inputs, output="out", **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def constant(value, name):
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.array(value), name)
    )


LAST = np.array([1], dtype=np.int64)
SCALE = {"s": np.arange(1, 7, dtype=np.float32), "b": np.ones(6, dtype=np.float32)}


@pytest.mark.parametrize(
    "graph",
    [
        model(node("Gelu", ["logits"]), opset=20),
        model(node("Gelu", ["logits"], approximate="tanh"), opset=20),
        model(node("LayerNormalization", ["logits", "s", "b"]), constants=SCALE),
        model(node("LayerNormalization", ["logits", "s"], epsilon=0.1), constants=SCALE),
        model(
            node("ReduceMean", ["logits", "axes"], "m"),
            node("Sub", ["logits", "m"]),
            constants={"axes": LAST},
        ),
        model(
            constant(np.array([1]), "axes"),
            node("ReduceL2", ["logits", "axes"], "m"),
            node("Div", ["logits", "m"]),
        ),
        model(
            constant(np.float32(-1), "low"),
            node("Clip", ["logits", "low", ""]),
        ),
        model(
            node("Exp", ["s"], "high"),
            node("Clip", ["logits", "", "high"]),
            constants={"s": np.array(0.5, dtype=np.float32)},
        ),
        model(
            node("Reshape", ["logits", "shape"], allowzero=1),
            constants={"shape": np.array([-1, 6])},
        ),
        model(
            node("Reshape", ["logits", "shape"]), opset=21, constants={"shape": np.array([-1, 6])}
        ),
        model(
            helper.make_node("Split", ["logits"], ["p", "q"], axis=1, num_outputs=2),
            node("Concat", ["q", "p"], axis=1),
        ),
        model(node("Softmax", ["logits"]), node("Hardmax", ["logits"], "unused")),
    ],
)
def test_graphs_of_todays_exporters_are_differentiable(tmp_path, graph):
    onnx.save(graph, tmp_path / "m.onnx")
    spec = f"onnx:{tmp_path / 'm.onnx'}"
    net, profile = load_with_profile(spec)
    assert profile.summary == "differentiable, through onnx2torch"
    expected = load_model(f"{spec}?gradients=no")(X)
    assert torch.allclose(net(X), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    leaf = X.clone().double().requires_grad_(True)
    (slope,) = torch.autograd.grad(net(leaf.float())[:, 2].sum(), leaf)
    step = 1e-2 * torch.ones(1, 1, 4, 4)
    rise = load_model(f"{spec}?gradients=no")
    ahead = rise(X + step)[:, 2] - rise(X - step)[:, 2]
    foretold = 2 * (slope.float() * step).flatten(1).sum(1)
    assert torch.allclose(ahead, foretold, rtol=0.1, atol=5e-3)


def test_a_conversion_that_computes_something_else_is_not_used(tmp_path):
    larger = node("Resize", ["x", "", "by"], "big", mode="nearest", nearest_mode="ceil")
    rows = helper.make_node("Flatten", ["big"], ["out"])
    twice = {"by": np.array([1, 1, 2, 2], dtype=np.float32)}
    onnx.save(model(larger, rows, before=(), opset=13, constants=twice), tmp_path / "m.onnx")
    classifier, profile = load_with_profile(f"onnx:{tmp_path / 'm.onnx'}")
    assert profile.summary.startswith(
        "scores only, through onnxruntime: onnx2torch's net differs by "
    )
    # Of four rows made eight, in half-pixel coordinates rounded up: 0 1 1 2 2 3 3 3.
    at = torch.tensor([0, 1, 1, 2, 2, 3, 3, 3])
    assert torch.equal(classifier(X), X[:, :, at][:, :, :, at].flatten(1))


def external(folder: Path, location: str):
    big = model(output="logits")
    onnx.save(
        big,
        folder / "big.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    lying = onnx.load(folder / "big.onnx", load_external_data=False)
    for tensor in lying.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(lying, folder / "big.onnx")
    return f"onnx:{folder / 'big.onnx'}"


def test_weights_beside_the_file_are_read(tmp_path, monkeypatch):
    expected = X.flatten(1) @ torch.from_numpy(WEIGHTS)
    spec = external(tmp_path, "weights.bin")
    assert torch.allclose(load_model(spec)(X), expected, atol=1e-5)
    monkeypatch.chdir(tmp_path)
    assert torch.allclose(load_model("onnx:big.onnx")(X), expected, atol=1e-5)


def test_weights_elsewhere_are_not_read(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    secret = WEIGHTS.tobytes()
    (tmp_path / "secret.bin").write_bytes(secret)
    for location in ("../secret.bin", str(tmp_path / "secret.bin")):
        with pytest.raises(InputError, match=r"outside of its folder .*; keep them beside it"):
            load_model(external(folder, location))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InputError, match="outside of its folder"):
        load_model(external(folder, "link.bin"))
    with pytest.raises(InputError, match=r"needs its weights in none\.bin; put them"):
        load_model(external(folder, "none.bin"))


def truncated(path: Path) -> None:
    onnx.save(model(output="logits"), path)
    path.write_bytes(path.read_bytes()[:-40])


def save(*arguments, **settings):
    return lambda path: onnx.save(model(*arguments, **settings), path)


def invalid(path: Path) -> None:
    broken = model(output="logits")
    broken.graph.node[1].input[0] = "nothing"
    onnx.save(broken, path)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: None, "does not exist; check the path behind onnx:"),
        (Path.mkdir, "does not exist"),
        (Path.touch, "is empty; export the model again"),
        (lambda path: path.write_text("net"), "is no whole ONNX file; export"),
        (lambda path: path.write_bytes(pickle.dumps({})), "is a pickle, which can run code"),
        (lambda path: torch.save({}, path), "is no whole ONNX file; export"),
        (truncated, "is no whole ONNX file; export"),
        (invalid, "is no valid ONNX file"),
        (save(node("Nonsense", ["logits"])), "is no valid ONNX file"),
        (save(output="logits", opset=99), "opset_version=18"),
        (save(output="logits", inputs=("x", "z")), "takes 2 inputs (x, z); export"),
        (save(output="logits", kind=TensorProto.BOOL, shape=(2, 1, 4, 4)), "is not read by"),
        (save(output="logits", shape=("n", 16)), "takes tensor(float) of shape ['n', 16]; export"),
        (save(output="logits", before=()), "is no whole ONNX file"),
        (save(node("Identity", ["x"]), before=(), rank=4), "returns out of shape (4, 1, 4, 4)"),
        (save(output="logits", shape=("n", 1, 8, 8)), "is not read by onnxruntime"),
        (save(output="logits", shape=("n", 1, "h", "w")), "32 or 224 or 28 or 64 rows"),
    ],
)
def test_a_file_that_is_something_else(tmp_path, write, told):
    path = tmp_path / "m.onnx"
    write(path)
    with pytest.raises(InputError) as error:
        load_model(f"onnx:{path}")
    assert told in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("gradients=maybe", "did you mean"),
        ("outputs=logits", "did you mean output"),
        ("num_classes=7", "the file has 6 outputs; leave num_classes out"),
        ("size=none", "size=none is not a number"),
    ],
)
def test_settings_that_do_not_exist(tmp_path, settings, told):
    save(output="logits")(tmp_path / "m.onnx")
    with pytest.raises(InputError, match=told):
        load_model(f"onnx:{tmp_path / 'm.onnx'}?{settings}")


def test_the_command_tells_it_in_one_sentence(forked_refused, tmp_path):
    save(output="logits")(tmp_path / "m.onnx")
    attack = ("attack", "--attack", "pgd", "--data", "digits", "--model")
    assert "does not exist" in forked_refused(*attack, "onnx:none.onnx")
    assert "images of shape (1, 8, 8) do not fit" in forked_refused(*attack, "onnx:m.onnx")
