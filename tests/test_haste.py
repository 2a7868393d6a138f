"""Other precisions, compiled copies and probed batch sizes change the time, not what is found."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Classifier, InputError, Lp, Norm, evaluate, load_attack, load_data
from robustbench_lite import load_model as load
from robustbench_lite.classifier import as_classifier
from robustbench_lite.health import IMAGES
from robustbench_lite.prepared import best_width, prepare
from robustbench_lite.running import Precision, Settings
from robustbench_lite.testing.models import conv_problem

LINF = Lp(Norm.LINF, 0.02)
PGD = load_attack("pgd", steps=10)


class Watched(nn.Module):
    """Notes in which numbers and in how wide batches it is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[tuple[torch.dtype, bool, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.seen.append((logits.dtype, x.requires_grad, len(x)))
        return logits


def watched(model: nn.Module) -> tuple[Watched, Classifier]:
    inside = Watched(model)
    inside.requires_grad_(False)
    return inside, Classifier(inside)


def test_the_search_is_in_bf16_and_the_verdict_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustbench_lite.judge.prepare", lambda model, *_, **__: model)
    problem = conv_problem(40)
    inside, model = watched(problem.model)
    outcome = evaluate(model, PGD, LINF, problem.data, precision=Precision.BF16)
    asked = [dtype for dtype, searching, width in inside.seen if searching and width > IMAGES]
    assert asked[:10] == [torch.bfloat16] * 10  # the probe of the gradients asks about fewer
    assert inside.seen[0][0] is torch.float32
    assert inside.seen[-1][:2] == (torch.float32, False)
    assert outcome.precision is Precision.BF16
    assert outcome.to_json()["precision"] == "bf16"


@pytest.mark.parametrize("prepared", [True, False])
def test_claims_that_only_hold_in_bf16_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, prepared: bool
) -> None:
    """The label is right in float32 all over the ball, and wrong in bf16."""

    class Close(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lead = 3 + x.flatten(1).mean(1)
            lead = -lead if torch.is_autocast_enabled("cpu") else lead
            return torch.stack([lead, -lead, torch.zeros_like(lead)], 1)

    def copied(model: Classifier, *_: object, **__: object) -> Classifier:
        """Not traced, which would fix the branch."""
        return as_classifier(Close()) if prepared else model

    monkeypatch.setattr("robustbench_lite.judge.prepare", copied)
    data = conv_problem(8).data
    data = replace(data, y=torch.zeros(8, dtype=torch.int64))
    outcome = evaluate(Close(), PGD, LINF, data, precision=Precision.BF16)
    assert outcome.robust_accuracy == 1.0
    assert not outcome.doubts
    assert min(r.backwards for r in outcome.records) >= 10  # searched again in float32


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_bf16_finds_nearly_as_much(norm: Norm) -> None:
    model, data = load("digits-cnn-at"), load_data("digits").sample(150)
    threat = Lp(norm, 0.2 if norm is Norm.LINF else 1.0)
    exact = evaluate(model, PGD, threat, data)
    rounded = evaluate(model, PGD, threat, data, precision=Precision.BF16)
    differ = [a.robust != b.robust for a, b in zip(exact.records, rounded.records, strict=True)]
    assert 0.1 < exact.robust_accuracy < exact.clean_accuracy - 0.1
    assert sum(differ) <= 3
    assert rounded.trust == exact.trust


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_copy_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, made = conv_problem(24), []
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: made.append(1) or real(*a, **k))
    plain = evaluate(problem.model, PGD, LINF, problem.data)
    assert not made
    fast = evaluate(problem.model, PGD, LINF, problem.data, compiled=True)
    assert made
    assert 0 < plain.robust_accuracy < 1
    assert [r.robust for r in fast.records] == [r.robust for r in plain.records]


def test_what_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/c++",))
    problem = conv_problem(4)
    torch.compiler.reset()
    with pytest.raises(InputError, match=r"cannot be compiled here \(.+\); leave out --compile"):
        prepare(as_classifier(problem.model), problem.data.x + 0.0, compiled=True)


def test_the_probe_stops_where_wider_batches_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts images: from 64 on every image takes as long."""
    now = 0.0

    def clock() -> float:
        return now

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal now
            now += max(len(x), 64)
            return torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], 1)

    monkeypatch.setattr("robustbench_lite.prepared.time.perf_counter", clock)
    x = conv_problem(512).data.x
    slow = Classifier(Slow())
    assert best_width(slow, x, Settings()) == 64
    assert best_width(slow, x[:40], Settings()) == 32
    assert best_width(slow, x[:5], Settings()) == 5


def test_the_probe_keeps_to_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 128:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], 1)

    monkeypatch.setattr("robustbench_lite.prepared._WORTH", 1e9)
    assert best_width(Classifier(Small()), conv_problem(512).data.x, Settings()) == 128


def test_a_probed_batch_size_changes_no_outcome() -> None:
    problem = conv_problem(80)
    inside, model = watched(problem.model)
    probed = evaluate(model, PGD, LINF, problem.data, batch_size=None)
    usual = evaluate(problem.model, PGD, LINF, problem.data)
    assert [r.queries for r in probed.records] == [r.queries for r in usual.records]
    widths = [width for _, searching, width in inside.seen if searching]
    assert any(a == b == 32 for a, b in pairwise(widths))  # the probe's


def test_the_command_takes_them(rbl, tmp_path) -> None:  # type: ignore[no-untyped-def]  # fixtures
    file = tmp_path / "out.json"
    options = ["--model", "digits-cnn", "--attack", "pgd", "--n", "64", "--json", str(file)]
    done = rbl("attack", *options, "--precision", "bf16", "--batch-size", "auto")
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())[0]["precision"] == "bf16"
    assert "bf16" in done.stdout


def test_the_command_tells_what_cannot_be_compiled(rbl) -> None:  # type: ignore[no-untyped-def]  # a fixture
    options = ["--model", "digits-cnn", "--attack", "fgsm", "--n", "8", "--compile"]
    done = rbl("attack", *options, CXX="/nowhere/c++", TORCHINDUCTOR_FORCE_DISABLE_CACHES="1")
    assert done.returncode == 2
    assert "leave out --compile" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_leaderboard_says_that_it_is_of_bf16(rbl, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # a fixture
    options = ["--models", "digits-cnn,digits-cnn-at", "--attacks", "fgsm", "--n", "20"]
    done = rbl("bench", *options, "--precision", "bf16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].rstrip().endswith("seed 0, bf16")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--precision", "fp8"], "--precision 'fp8' is unknown; give float32 or bf16"),
        (["--batch-size", "many"], "--batch-size 'many' is neither auto nor a whole number"),
        (["--batch-size", "0"], "--batch-size 0 leaves nothing to do; give 1 or more"),
    ],
)
@pytest.mark.parametrize("command", ["attack", "bench"])
def test_other_values_are_refused(rbl, command, options, told) -> None:  # type: ignore[no-untyped-def]  # fixtures
    models = ["--model" if command == "attack" else "--models", "digits-cnn"]
    done = rbl(command, *models, *options)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())
