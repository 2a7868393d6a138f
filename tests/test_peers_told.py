"""Attacks of other libraries: what they are told, and that it is what the library would do."""

import math
import sys
from typing import Any

import pytest
import torch
from rbl_attacks.peers import Foreign, Job
from stub_library import (
    EPS,
    LIBRARIES,
    LINEAR,
    MODULES,
    PROBLEM,
    THREAT,
    Behaviour,
    Stub,
    build,
    judged,
)
from torch import Tensor, nn

from robustbench_lite import InputError, Lp, Norm
from robustbench_lite.goal import Targeted
from robustbench_lite.loss import margin
from robustbench_lite.registry import load_attack
from robustbench_lite.testing.trial import shortened
from robustbench_lite.threat import Access

pytestmark = pytest.mark.usefixtures("stub_library")


# ---- what it is told -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "texts", "values"),
    [
        ("torchattacks:CW", {"c": "1", "lr": "1e-3"}, {"c": 1, "lr": 1e-3}),
        ("torchattacks:PGD", {"alpha": "2/255", "random_start": "no"}, None),
        ("torchattacks:Pixle", {"x_dimensions": "1,0.5"}, {"x_dimensions": (1, 0.5)}),
        ("foolbox:L2DeepFoolAttack", {"candidates": "none"}, {"candidates": None}),
        ("foolbox:LinfPGD", {"abs_stepsize": "0.01"}, {"abs_stepsize": 0.01}),
        ("art:DeepFool", {"max_iter": "7", "epsilon": "0"}, {"max_iter": 7, "epsilon": 0}),
        ("advlib:sigma_zero", {"τ_0": "0.3"}, {"τ_0": 0.3}),
        ("advlib:ddn", {"levels": "none", "steps": 9}, {"levels": None, "steps": 9}),
    ],
)
def test_texts_become_the_types_of_the_signature(
    spec: str, texts: dict[str, object], values: dict[str, object] | None
) -> None:
    found = dict(build(spec, **texts).settings)
    expected = values or {"alpha": 2 / 255, "random_start": False}
    assert found == expected
    assert [type(v) for v in found.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("torchattacks:PGDD", {}, "no attack of torchattacks.*did you mean.*PGD"),
        ("torchattacks:PGD", {"step": 3}, "no setting of torchattacks:PGD.*steps"),
        ("torchattacks:PGD", {"eps": 0.1}, "'eps' of torchattacks:PGD follows from the threat"),
        ("torchattacks:APGD", {"norm": "L2"}, "'norm' of torchattacks:APGD follows"),
        ("torchattacks:PGD", {"steps": "many"}, "steps of torchattacks:PGD is 'many'.*a number"),
        ("torchattacks:PGD", {"alpha": "nan"}, "alpha of torchattacks:PGD is 'nan'"),
        ("torchattacks:PGD", {"alpha": "1/0"}, "alpha of torchattacks:PGD is '1/0'"),
        ("torchattacks:PGD", {"random_start": "3"}, "random_start.*true or false"),
        ("foolbox:LinfPGD", {"steps": "2.5"}, "steps of foolbox:LinfPGD.*a whole number"),
        ("foolbox:HopSkipJumpAttack", {"init_attack": "x"}, "'init_attack'.*follows"),
        ("art:FastGradientMethod", {"targeted": "yes"}, "'targeted'.*follows"),
        ("advlib:alma", {"penalty": "P2"}, "no setting of advlib:alma is called 'penalty'"),
        ("torchattacks:FGSM", {"steps": 3}, "torchattacks:FGSM has no setting 'steps'"),
    ],
)
def test_what_cannot_be_told_is_refused(
    spec: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(spec, **settings)


def test_a_library_that_is_not_there_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "behaviour_of_a_library", None)
    with pytest.raises(InputError, match=r"stub cannot be imported.*robustbench-lite\[peers\]"):
        Stub(name="shift")


def test_an_attack_that_the_installed_version_lacks_is_told(monkeypatch) -> None:
    monkeypatch.delattr(Behaviour, "shift")
    with pytest.raises(InputError, match=r"the installed stub .* has no shift; update it"):
        Stub(name="shift")


def job(eps: float, norm: Norm = Norm.LINF, channels: int = 3) -> Job:
    x = torch.zeros(2, channels, 4, 4)
    return Job(LINEAR, x, torch.zeros(2).long(), False, norm, eps, classes=7, seed=11)


def test_step_sizes_keep_their_ratio_to_eps() -> None:
    assert build("torchattacks:PGD").arguments(job(0.4))["alpha"] == pytest.approx(0.1)
    assert build("torchattacks:PGD", alpha=0.3).arguments(job(0.4))["alpha"] == 0.3
    assert build("art:ProjectedGradientDescent").arguments(job(0.3))["eps_step"] == 0.1


def test_threat_seed_and_classes_are_handed_on() -> None:
    told = build("torchattacks:FAB").arguments(job(0.4, Norm.L2))
    assert (told["eps"], told["norm"], told["seed"], told["n_classes"]) == (0.4, "L2", 11, 7)
    assert "seed" not in build("torchattacks:PGD").arguments(job(0.4))
    assert build("torchattacks:OnePixel").arguments(job(7.0, Norm.L0))["pixels"] == 2
    assert build("torchattacks:OnePixel").arguments(job(2.0, Norm.L0))["pixels"] == 1
    assert build("advlib:tr").arguments(job(1, Norm.LINF))["p"] == math.inf
    assert build("art:HopSkipJump").arguments(job(1, Norm.L2))["batch_size"] == 2
    assert build("art:HopSkipJump", batch_size=1).arguments(job(1, Norm.L2))["batch_size"] == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_the_tables_promise_is_in_the_installed_library(library: str) -> None:
    pytest.importorskip(MODULES[library])
    cls = {c.library: c for c in Foreign.__subclasses__()}[library]
    for name, peer in cls.peers.items():
        known = cls(name=name).parameters()
        told = {key for each in peer.norms.values() for key in each}
        wanted = (told | {peer.eps, *peer.scaled}) - {""}
        assert wanted <= known.keys(), name
        assert all(known[s].default for s in peer.scaled), name
        assert peer.minimal or peer.eps or library == "foolbox", name


def test_it_is_a_value_that_reads_as_one_writes_it() -> None:
    attack = build("torchattacks:CW", c="1", steps="20")
    assert str(attack) == "torchattacks:CW(c=1, steps=20)"
    assert shortened(attack, 5) == attack
    assert hash(attack) == hash(build("torchattacks:CW", c=1, steps=20))
    assert attack != build("torchattacks:CW", c=2, steps=20)


def test_it_is_loaded_by_the_registry(monkeypatch) -> None:
    pytest.importorskip("torchattacks")
    monkeypatch.setattr("robustbench_lite.registry.find", lambda _kind, name: LIBRARIES[name])
    attack = load_attack("torchattacks:CW", c="2")
    assert str(attack) == "torchattacks:CW(c=2)"
    with pytest.raises(InputError, match="needs the name"):
        load_attack("torchattacks")


def test_norms_follow_the_table() -> None:
    fab = build("torchattacks:FAB")
    assert [n for n in Norm if fab.supports(Lp(n))] == [Norm.L2, Norm.LINF]
    square = build("art:SquareAttack")
    assert (square.minimal, square.needs, square.targetable) == (False, Access.SCORES, False)
    assert square.supports(THREAT)
    assert not square.supports(Lp(Norm.LINF))
    assert not square.supports(Lp(Norm.LINF, 0.0))  # it refuses an eps of 0


# ---- the libraries' own answers --------------------------------------------------------------


def native_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import torchattacks

    return torchattacks.BIM(model, eps=EPS, alpha=EPS / 4, steps=3)(x, y)


def native_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return foolbox.attacks.DDNAttack(steps=9)(wrapped, x, y, epsilons=None)[0]


def native_art(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 6, 6), 5, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = ProjectedGradientDescent(
        classifier, eps=EPS, eps_step=EPS / 3, max_iter=3, batch_size=len(x), verbose=False
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def native_adv_lib(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    from adv_lib.attacks import df

    return df(model, x, y, norm=math.inf, steps=9)


@pytest.mark.parametrize(
    ("spec", "settings", "norm", "native"),
    [
        ("torchattacks:BIM", {"steps": "3"}, Norm.LINF, native_torchattacks),
        ("foolbox:DDNAttack", {"steps": "9"}, Norm.L2, native_foolbox),
        ("art:ProjectedGradientDescent", {"max_iter": "3"}, Norm.LINF, native_art),
        ("advlib:df", {"steps": "9"}, Norm.LINF, native_adv_lib),
    ],
)
def test_the_images_are_those_of_the_library_called_by_hand(
    spec: str, settings: dict[str, object], norm: Norm, native: Any
) -> None:
    attack = build(spec, **settings)
    threat = Lp(norm) if attack.minimal else Lp(norm, EPS)
    outcome = judged(attack, PROBLEM, threat)
    by_hand = native(PROBLEM.model, PROBLEM.data.x.clone(), PROBLEM.data.y).detach()
    broken = torch.tensor([r.size is not None and not r.robust for r in outcome.records])
    assert int(broken.sum()) >= 6
    torch.testing.assert_close(outcome.adversarials[broken], by_hand[broken], atol=1e-4, rtol=0)
    with torch.no_grad():
        lead = margin(PROBLEM.model(by_hand), PROBLEM.data.y)
    clear = lead.abs() > 1e-4  # nearer to the border, rounding decides
    assert torch.equal((lead > 0)[clear], broken[clear])


@pytest.mark.parametrize(
    "spec",
    ["torchattacks:PGD", "foolbox:LinfPGD", "art:BasicIterativeMethod", "advlib:pgd_linf"],
)
def test_each_library_reaches_the_target_that_is_asked_for(spec: str) -> None:
    outcome = judged(build(spec), PROBLEM, Lp(Norm.LINF, 0.1), goal=Targeted(0))
    reached = [i for i, r in enumerate(outcome.records) if r.size is not None]
    with torch.no_grad():
        found = PROBLEM.model(outcome.adversarials[reached]).argmax(1)
    assert len(reached) >= 6
    assert found.unique().tolist() == [0]
