import copy
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_lite import Access, Lp, Norm, evaluate
from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.errors import InputError
from robustbench_lite.identity import digest_of_model
from robustbench_lite.models import load_model, load_with_profile
from robustbench_lite.prepared import prepare
from robustbench_lite.registry import load_attack, load_data

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")

X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
ANY = ({0: torch.export.Dim("n")},)


def script(net: nn.Module, path: Path) -> str:
    torch.jit.trace(net, X[:2], check_trace=False).save(str(path))
    return f"torchscript:{path}"


def frozen(net: nn.Module, path: Path) -> str:
    torch.jit.freeze(torch.jit.trace(net, X[:2], check_trace=False).eval()).save(str(path))
    return f"torchscript:{path}"


def export(net: nn.Module, path: Path) -> str:
    torch.export.save(torch.export.export(net, (X[:2],), dynamic_shapes=ANY), path)
    return f"exported:{path}"


def export_of(batch: int):
    def export(net: nn.Module, path: Path) -> str:
        torch.export.save(torch.export.export(net, (X[:batch],)), path)
        return f"exported:{path}"

    return export


WAYS = {
    "script": script,
    "frozen": frozen,
    "export": export,
    "batch of 1": export_of(1),
    "batch of 3": export_of(3),
}


@pytest.fixture(scope="module")
def net() -> Classifier:
    return load_model("digits-cnn-at")


@pytest.fixture(scope="module")
def specs(net, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {way: write(net, folder / f"{n}.pt2") for n, (way, write) in enumerate(WAYS.items())}


def slope(model: nn.Module) -> torch.Tensor:
    x = X.clone().requires_grad_(True)
    return torch.autograd.grad(model(x).square().sum(), x)[0]


@pytest.mark.parametrize("way", WAYS)
def test_logits_and_gradients_are_those_of_the_net(net, specs, way):
    with borrowed(net):
        model = load_model(specs[way])
        assert torch.allclose(model(X), net(X), rtol=0, atol=1e-4)
        expected = slope(net)
        assert torch.allclose(slope(model), expected, rtol=0, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("way", WAYS)
def test_every_sample_ends_as_it_does_with_the_net(net, specs, way):
    data, pgd, threat = load_data("digits").sample(60), load_attack("pgd"), Lp(Norm.LINF, 0.15)
    records = [
        [(r.id, r.correct, r.robust) for r in evaluate(model, pgd, threat, data).records]
        for model in (net, load_model(specs[way]))
    ]
    assert records[0] == records[1]
    assert {robust for _, _, robust in records[0]} == {True, False}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_answers_for_any_company_and_every_time(specs, way):
    model = load_model(specs[way])
    alone = torch.cat([model(x[None]) for x in X])
    for _ in range(4):
        assert torch.allclose(model(X), alone, rtol=0, atol=1e-4)
        assert torch.equal(model(X), model(X))


@pytest.mark.parametrize("way", WAYS)
def test_modes_copies_and_the_fast_copy_do_no_harm(specs, way):
    model = load_model(specs[way])
    expected = model(X)
    with borrowed(model):
        assert prepare(model, X) is model
    for other in (model.train(), model.eval(), copy.deepcopy(model), model.to("cpu")):
        assert torch.equal(other(X), expected)
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("way", WAYS)
def test_the_digest_is_that_of_the_weights(net, specs, way, tmp_path):
    def digest(spec: str) -> str:
        model = load_model(spec)
        model.name = ""  # files of other names
        return digest_of_model(model)

    assert digest(specs[way]) == digest(specs[way])
    source, _, path = specs[way].partition(":")
    assert digest(f"{source}:{shutil.copy(path, tmp_path / 'same')}") == digest(specs[way])
    nudge_one_weight(Path(path), tmp_path / "nudged")
    assert digest(f"{source}:{tmp_path / 'nudged'}") != digest(specs[way])


def nudge_one_weight(path: Path, target: Path) -> None:
    """By one unit in the last place, in the largest member of the archive."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        largest = max(old.infolist(), key=lambda entry: entry.file_size).filename
        for name in old.namelist():
            body = old.read(name)
            if name == largest:
                weights = np.frombuffer(body, np.float32).copy()
                weights[5] = np.nextafter(weights[5], np.float32(9))
                body = weights.tobytes()
            new.writestr(name, body)


def test_what_is_known_of_an_export_is_told(specs):
    _, profile = load_with_profile(specs["export"])
    assert (profile.channels, profile.size, profile.classes) == (1, 8, 10)
    assert profile.parameters == 136_586
    _, profile = load_with_profile(f"{specs['script']}?num_classes=10")
    assert (profile.channels, profile.size, profile.classes) == (0, 0, 10)
    assert profile.parameters == 136_586


def test_settings_count(net, specs):
    normalised = load_model(f"{specs['script']}?normalize=0.5/0.25")
    assert torch.allclose(normalised(X), net((X - 0.5) / 0.25), atol=1e-4)
    larger = load_model(f"{specs['export']}?resize=8")
    assert larger(torch.rand(2, 1, 16, 16)).shape == (2, 10)
    for way in ("script", "export"):
        assert load_model(f"{specs[way]}?gradients=no").access is Access.SCORES


def test_sizes_that_are_computed_from_the_batch(tmp_path):
    class Doubling(nn.Module):
        def forward(self, x):
            twice = torch.cat([x, x]).reshape(x.shape[0] * 2, -1)[:, :10]
            return twice[: x.shape[0]] * twice.shape[0]

    spec = export(Doubling(), tmp_path / "doubling.pt2")
    assert torch.equal(load_model(spec)(X), X.reshape(7, -1)[:, :10] * 14)


@pytest.mark.parametrize("way", ["script", "batch of 3"])
def test_the_command_attacks_files(forked_rbl, specs, way, tmp_path):
    attack = ("--attack", "pgd", "--data", "digits", "--n", 40, "--eps", 0.15, "--json")
    found = []
    for number, model in enumerate(("digits-cnn-at", specs[way])):
        out = f"{number}.json"
        done = forked_rbl("attack", "--model", model, *attack, out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (outcome,) = json.loads((tmp_path / out).read_text())
        found.append([(r["id"], r["correct"], r["robust"]) for r in outcome["samples"]])
    assert found[0] == found[1]


def test_a_suite_computes_a_file_once(forked_rbl, specs, tmp_path):
    bench = ("bench", "--models", specs["export"], "--attacks", "fgsm", "--data", "digits")
    bench += ("--n", 20, "--eps", 0.1, "--out", "runs")
    seen = []
    for _ in range(2):
        done = forked_rbl(*bench, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        seen.append({f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("*.jsonl")})
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


class Image(nn.Module):
    def forward(self, x):
        return x


class Pair(nn.Module):
    def forward(self, x, z):
        return x.flatten(1) + z.flatten(1)


def write_export(net: nn.Module, *x: torch.Tensor):
    return lambda path: torch.export.save(torch.export.export(net, x), path)


def write_weights(path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), path)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/b.txt", "text")


def write_half(write):
    def half(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:-300])

    return half


def write_script(path: Path) -> None:
    script(nn.Flatten(), path)


@pytest.mark.parametrize(
    ("source", "write", "told"),
    [
        *(
            (s, lambda p: None, "does not exist; check the path")
            for s in ("torchscript", "exported")
        ),
        *((s, lambda p: p.touch(), "is empty; save the") for s in ("torchscript", "exported")),
        *((s, lambda p: p.mkdir(), "does not exist") for s in ("torchscript", "exported")),
        *((s, lambda p: p.write_text("net"), "no whole") for s in ("torchscript", "exported")),
        *(
            (s, lambda p: p.write_bytes(pickle.dumps({})), "is a pickle, which can run code")
            for s in ("torchscript", "exported")
        ),
        (
            "torchscript",
            write_weights,
            "weights but no program; save the model again with torch.jit",
        ),
        ("exported", write_weights, "no archive of torch.export.save; save the model again"),
        ("torchscript", write_zip, "no TorchScript archive; save"),
        ("exported", write_script, "no archive of torch.export.save; save"),
        ("torchscript", write_export(nn.Flatten(), X), "no TorchScript archive; save"),
        ("torchscript", write_half(write_script), "no whole archive"),
        ("exported", write_half(write_export(nn.Flatten(), X)), "no archive of torch.export.save"),
        ("exported", write_export(nn.Flatten(), X[0]), "takes (1, 8, 8); export"),
        ("exported", write_export(Pair(), X, X), "takes (7, 1, 8, 8) and (7, 1, 8, 8)"),
        ("exported", write_export(Image(), X), "returns (7, 1, 8, 8); export"),
    ],
)
def test_a_file_that_is_something_else(source, write, told, tmp_path):
    path = tmp_path / "file"
    write(path)
    with pytest.raises(InputError) as error:
        load_model(f"{source}:{path}")
    assert told in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("gradients=maybe", "did you mean"),
        ("gradient=no", "did you mean gradients"),
        ("num_classes=9", "has 10 outputs"),
    ],
)
def test_settings_that_do_not_exist(specs, setting, told):
    with pytest.raises(InputError, match=told):
        load_model(f"{specs['export']}?{setting}")


def test_images_of_another_shape_are_told_in_one_sentence(forked_refused, specs):
    said = forked_refused(
        *("attack", "--model", specs["script"], "--attack", "fgsm", "--data", "mnist5k", "--n", 4)
    )
    assert "cannot take images of shape (1, 28, 28)" in said
