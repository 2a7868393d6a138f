import pytest
import torch

from robustbench_lite.errors import InputError
from robustbench_lite.export import exported
from robustbench_lite.models import load_model, load_with_profile
from robustbench_lite.registry import load_data

pytest.importorskip("onnxscript")
KINDS = {".onnx": "onnx", ".pt2": "exported", ".ts": "torchscript"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["digits-cnn", "mnist-mlp"])
def test_a_file_answers_as_the_model_does(tmp_path, name, kind):
    model, profile = load_with_profile(name)
    path = tmp_path / f"net{kind}"
    shape = (profile.channels, profile.size, profile.size)
    path.write_bytes(exported(model, shape, kind))
    x = torch.rand(37, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
        again = load_model(f"{KINDS[kind]}:{path}")
        largest = float(expected.abs().max())
        for width in (1, 2, 37):
            parts = torch.cat([again(part) for part in x.split(width)])
            assert torch.allclose(parts, expected, rtol=0, atol=1e-5 * largest)


def test_normalisation_and_defenses_are_in_the_file(tmp_path):
    model = load_model("digits-cnn+bit-depth?bits=2")
    (tmp_path / "net.ts").write_bytes(exported(model, (1, 8, 8), ".ts"))
    x, again = load_data("digits").x[:20], load_model(f"torchscript:{tmp_path / 'net.ts'}")
    with torch.no_grad():
        assert torch.allclose(again(x), model(x), atol=1e-4)
        assert not torch.allclose(load_model("digits-cnn")(x), model(x), atol=1e-2)


def test_the_model_stays_as_it_was():
    model = load_model("digits-cnn").train()
    wanted = [p.requires_grad for p in model.parameters()]
    exported(model, (1, 8, 8), ".ts")
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == wanted


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("digits-hog-linear", ".onnx", "gives no gradients, as it is no net of torch; keep"),
        ("digits-cnn+gaussian-noise", ".ts", "draws random numbers"),
        ("digits-cnn+jpeg", ".ts", "its .ts file answers otherwise"),
        ("digits-cnn+jpeg", ".pt2", "cannot be exported to .pt2"),
        ("digits-cnn", ".h5", "choose .onnx, .pt2 or .ts"),
    ],
)
def test_what_cannot_be_in_a_file(name, kind, told):
    with pytest.raises(InputError) as error:
        exported(load_model(name), (1, 8, 8), kind)
    assert told in str(error.value)


def test_the_command_writes_a_file_that_can_be_attacked(forked_rbl, tmp_path):
    done = forked_rbl("export", "digits-cnn", "--out", "net.pt2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("net.pt2: digits-cnn for images of 1 x 8 x 8, ")
    assert [f.name for f in tmp_path.iterdir()] == ["net.pt2"]
    attack = ("attack", "-a", "fgsm", "-d", "digits", "--n", 50, "--eps", 0.1, "--model")
    rows = []
    for model in ("digits-cnn", "exported:net.pt2"):
        done = forked_rbl(*attack, model, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (row,) = (line for line in done.stdout.splitlines() if line.startswith("fgsm"))
        rows.append(row.split()[:4])
    assert rows[0] == rows[1]


def test_the_command_refuses_in_one_sentence(forked_refused):
    assert "must end in .onnx, .pt2 or .ts" in forked_refused("export", "digits-cnn", "-o", "a.h5")
    said = forked_refused("export", "digits-cnn+gaussian-noise", "-o", "a.ts")
    assert "draws random numbers" in said
    assert "does not exist" in forked_refused("export", "digits-cnn", "-o", "none/a.ts")
