import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_lite import Access, Lp, Norm, evaluate
from robustbench_lite.errors import InputError
from robustbench_lite.export import exported
from robustbench_lite.identity import digest_of_model
from robustbench_lite.models import load_model, load_with_profile
from robustbench_lite.registry import load_attack, load_data

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2torch")
pytest.importorskip("onnxscript")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

NETS = {"digits-cnn-at": "digits", "digits-clip": "digits", "mnist-vit": "mnist5k"}
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(64, 10)).astype(np.float32)
DIFFERENTIABLE = "differentiable, through onnx2torch"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder, paths = tmp_path_factory.mktemp("onnx"), {}
    for name in NETS:
        classifier, profile = load_with_profile(name)
        paths[name] = folder / f"{name}.onnx"
        shape = (profile.channels, profile.size, profile.size)
        paths[name].write_bytes(exported(classifier, shape, ".onnx"))
    return paths


@pytest.mark.parametrize("name", NETS)
def test_every_sample_of_a_net_of_the_zoo_ends_as_the_original_does(files, name):
    model, profile = load_with_profile(f"onnx:{files[name]}")
    original = load_with_profile(name)[1]
    assert (profile.summary, model.access) == (DIFFERENTIABLE, Access.GRADIENTS)
    assert (profile.channels, profile.size) == (original.channels, original.size)
    assert profile.classes == original.classes == 10
    data, pgd = load_data(NETS[name]).sample(100), load_attack("pgd")
    threat = Lp(Norm.LINF, original.eps / 2)
    ends = [
        [(r.id, r.correct, r.robust) for r in evaluate(net, pgd, threat, data).records]
        for net in (load_model(name), model)
    ]
    assert ends[0] == ends[1]
    assert {robust for _, _, robust in ends[0]} == {True, False}


def test_without_gradients_onnxruntime_gives_the_same_scores(files):
    x = load_data("digits").x[:33]
    spec = f"onnx:{files['digits-cnn-at']}"
    model, profile = load_with_profile(f"{spec}?gradients=no")
    assert (profile.summary, model.access) == (
        "scores only, through onnxruntime: gradients=no",
        Access.SCORES,
    )
    with torch.no_grad():
        assert torch.allclose(model(x), load_model("digits-cnn-at")(x), rtol=0, atol=1e-4)
        assert torch.allclose(model(x), load_model(spec)(x), rtol=0, atol=1e-4)


def test_the_digest_is_that_of_the_file(files, tmp_path):
    def digest(path: Path, more: str = "") -> str:
        model = load_model(f"onnx:{path}{more}")
        model.name = ""
        return digest_of_model(model)

    path = files["digits-cnn-at"]
    assert digest(path) == digest(path) != digest(path, "?gradients=no")
    model = onnx.load(path)
    bias = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    values = numpy_helper.to_array(bias).copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(9))
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "nudged.onnx")
    assert digest(tmp_path / "nudged.onnx") != digest(path)


def test_the_command_attacks_a_file(forked_rbl, files, tmp_path):
    attack = ("--attack", "pgd", "--data", "digits", "--n", 40, "--eps", 0.15, "--json")
    found = []
    for number, model in enumerate(("digits-cnn-at", f"onnx:{files['digits-cnn-at']}")):
        done = forked_rbl("attack", "-m", model, *attack, f"{number}.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (outcome,) = json.loads((tmp_path / f"{number}.json").read_text())
        found.append([(r["id"], r["correct"], r["robust"]) for r in outcome["samples"]])
    assert found[0] == found[1]


def linear(
    shape=("n", 1, 8, 8),
    *,
    kind=TensorProto.FLOAT,
    before=(),
    after=(),
    outputs=("logits",),
    opset=17,
    weights=WEIGHTS,
    inputs=("x",),
):
    """Pixels times WEIGHTS, with nodes before and after."""
    last = before[-1].output[0] if before else "x"
    dtype = helper.tensor_dtype_to_np_dtype(kind) if kind != TensorProto.UINT8 else np.float32
    nodes = [
        *before,
        helper.make_node("Flatten", [last], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["logits"]),
        *after,
    ]
    of = TensorProto.FLOAT if kind == TensorProto.UINT8 else kind
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(name, of, ("m", "k")) for name in outputs],
        [numpy_helper.from_array(weights.astype(dtype), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(path: Path, model) -> str:
    onnx.save(model, path)
    return f"onnx:{path}"


X = torch.from_numpy(RANDOM.random((5, 1, 8, 8), dtype=np.float32))
EXPECTED = X.flatten(1) @ torch.from_numpy(WEIGHTS)
CAST = helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT)


@pytest.mark.parametrize(
    ("model", "scale", "summary"),
    [
        (linear(), 1, DIFFERENTIABLE),
        (linear(("n", 1, "h", "w")), 1, DIFFERENTIABLE),
        (linear((1, 1, 8, 8)), 1, DIFFERENTIABLE),
        (linear((3, 1, 8, 8)), 1, DIFFERENTIABLE),
        (linear(("n", 8, 8, 1)), 1, DIFFERENTIABLE),
        (linear((2, 8, 8, 1)), 1, DIFFERENTIABLE),
        (linear(kind=TensorProto.DOUBLE), 1, DIFFERENTIABLE),
        (
            linear(kind=TensorProto.UINT8, before=[CAST]),
            255,
            "scores only, through onnxruntime: it takes whole numbers",
        ),
    ],
    ids=["any", "any size", "batch 1", "batch 3", "nhwc", "nhwc 2", "double", "uint8"],
)
def test_a_linear_model_in_every_dress(tmp_path, model, scale, summary):
    spec = saved(tmp_path / "m.onnx", model)
    for more in ("?size=8", "?size=8&gradients=no"):
        classifier, profile = load_with_profile(spec + more)
        x = (255 * X).round() / 255 if scale == 255 else X
        expected = scale * (x.flatten(1) @ torch.from_numpy(WEIGHTS))
        assert torch.allclose(classifier(x), expected, rtol=1e-4, atol=1e-4)
        assert torch.allclose(classifier(x[:1]), expected[:1], rtol=1e-4, atol=1e-4)
        if more == "?size=8":
            assert profile.summary == summary
            assert profile.classes == 10
    if summary == DIFFERENTIABLE:
        leaf = X.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(load_model(f"{spec}?size=8")(leaf)[:, 3].sum(), leaf)
        assert torch.allclose(slope.flatten(1), torch.from_numpy(WEIGHTS[:, 3]).expand(5, 64))


def test_an_operator_that_is_not_converted_leaves_the_scores(tmp_path):
    twice = helper.make_node("Hardmax", ["logits"], ["choice"])
    spec = saved(tmp_path / "m.onnx", linear(after=[twice], outputs=["choice"]))
    classifier, profile = load_with_profile(spec)
    assert profile.summary == "scores only, through onnxruntime: Hardmax is not converted"
    assert classifier.access is Access.SCORES
    assert torch.equal(classifier(X).argmax(1), EXPECTED.argmax(1))


def test_one_of_several_outputs_is_chosen(tmp_path):
    more = [helper.make_node("Neg", ["logits"], ["other"])]
    spec = saved(tmp_path / "m.onnx", linear(after=more, outputs=["logits", "other"]))
    with pytest.raises(InputError, match=r"has the outputs logits, other; choose .* output=NAME"):
        load_model(spec)
    assert torch.allclose(load_model(f"{spec}?output=other")(X), -EXPECTED, atol=1e-4)
    assert torch.allclose(load_model(f"{spec}?output=logits")(X), EXPECTED, atol=1e-4)
    with pytest.raises(InputError, match="did you mean logits"):
        load_model(f"{spec}?output=logit")


def test_the_layout_can_be_told(tmp_path):
    spec = saved(tmp_path / "m.onnx", linear(("n", "a", "b", "c")))
    x = torch.rand(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for layout, seen in (("nchw", x), ("nhwc", x.permute(0, 2, 3, 1))):
        told = saved(tmp_path / "c.onnx", linear(("n", 4, 4, 4)))
        expected = seen.flatten(1) @ torch.from_numpy(WEIGHTS)
        assert torch.allclose(load_model(f"{told}?layout={layout}")(x), expected, atol=1e-4)
    with pytest.raises(InputError, match="did you mean nhwc"):
        load_model(f"{spec}?layout=hwc")
