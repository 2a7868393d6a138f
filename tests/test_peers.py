"""Attacks of other libraries: what they are told, what they may touch, and what counts."""

import logging
import math
import random
import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rbl_attacks import peers
from rbl_attacks.peers import Foreign, Job, Peer
from rbl_attacks.peers.isolated import isolated
from torch import Tensor, nn

from robustbench_lite import Dataset, InputError, Lp, Norm, Outcome, evaluate
from robustbench_lite.attack import Walk
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.goal import Targeted
from robustbench_lite.lending import Lent, lend
from robustbench_lite.loss import margin
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.registry import load_attack
from robustbench_lite.rng import Rng
from robustbench_lite.testing.models import Linear, Problem, Recorder, conv_problem
from robustbench_lite.testing.trial import shortened
from robustbench_lite.threat import Access

EPS = 0.02
LIBRARIES = {
    "torchattacks": peers.torchattacks,
    "foolbox": peers.foolbox,
    "art": peers.art,
    "advlib": peers.advlib,
}
MODULES = {"torchattacks": "torchattacks", "foolbox": "foolbox", "art": "art", "advlib": "adv_lib"}


def build(spec: str, **settings: object) -> Foreign:
    library, _, name = spec.partition(":")
    pytest.importorskip(MODULES[library])
    return LIBRARIES[library](name, settings)


def judged(attack: Foreign, problem: Problem, threat: Lp, **more: Any) -> Outcome:
    return evaluate(problem.model, attack, threat, problem.data, **more)


# ---- a library of ours that behaves as badly as any -------------------------------------------


class Behaviour(ModuleType):
    """Attacks as functions of a job and of the arguments that they are told."""

    @staticmethod
    def shift(job: Job, eps: float, amount: float = 1.0, loudly: bool = False) -> Tensor:
        if loudly:
            sys.stdout.write("progress")
            sys.stderr.write("progress")
        return job.x + eps * amount

    @staticmethod
    def ascend(job: Job, eps: float) -> Tensor:
        x = job.x.requires_grad_(True)
        loss = nn.functional.cross_entropy(job.module(x), job.y, reduction="sum")
        slope = torch.autograd.grad(loss, x)[0]
        return x + eps * (-slope if job.targeted else slope).sign()

    @staticmethod
    def secretive(job: Job, eps: float) -> Tensor:
        """Finds what fools the model, and hands back the image."""
        found = Behaviour.ascend(job, eps).clamp(0, 1)
        job.module(found)
        return job.x

    @staticmethod
    def noise(job: Job, eps: float) -> np.ndarray:
        mixed = torch.rand(job.x.shape) + np.random.rand(*job.x.shape) + random.random()
        return (job.x + eps * (mixed / 1.5 - 1)).numpy()

    @staticmethod
    def vandal(job: Job, eps: float) -> Tensor:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        logging.getLogger().addHandler(logging.NullHandler())
        job.module.train()
        for p in job.module.parameters():
            p.requires_grad_(True)
        with torch.no_grad():
            job.x.add_(eps)
            job.y.zero_()
        return job.x.double()

    @staticmethod
    def fail(job: Job, eps: float) -> Tensor:
        raise RuntimeError("no\n  luck")

    @staticmethod
    def misshapen(job: Job, eps: float) -> Tensor:
        return job.x[:, :, :1]

    @staticmethod
    def nothing(job: Job, eps: float) -> None:
        return None

    @staticmethod
    def nan(job: Job, eps: float) -> Tensor:
        return job.x * torch.nan


_FIXED = Peer({Norm.LINF: {}}, eps="eps")


@dataclass(frozen=True, kw_only=True)
class Stub(Foreign):
    library = "stub"
    module = "behaviour_of_a_library"
    distribution = "no-such-distribution"
    peers = {name: _FIXED for name in vars(Behaviour) if not name.startswith("_")}  # noqa: RUF012
    reserved = frozenset({"job"})

    def implied(self, job: Job) -> dict[str, object]:
        return {"job": job}

    def run(self, job: Job) -> Any:
        return self.function()(**self.arguments(job))


@pytest.fixture(autouse=True)
def stub_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "behaviour_of_a_library", Behaviour("behaviour_of_a_library"))


PROBLEM = conv_problem(12)
THREAT = Lp(Norm.LINF, EPS)


# ---- what counts -----------------------------------------------------------------------------


def test_only_what_it_returns_counts() -> None:
    open_ = judged(Stub(name="ascend"), PROBLEM, THREAT)
    secret = judged(Stub(name="secretive"), PROBLEM, THREAT)
    assert open_.robust_accuracy < 0.5
    assert secret.robust_accuracy == 1.0


def test_an_image_outside_eps_is_no_success() -> None:
    far = judged(Stub(name="ascend"), PROBLEM, replace(THREAT, eps=0.2))
    assert far.robust_accuracy == 0.0
    weight = torch.ones(2, 4)
    weight[1] = -1
    model, x = Linear(weight), torch.full((1, 1, 2, 2), 0.51)
    data = Dataset(x, torch.tensor([0]))
    inside = Stub(name="shift", settings=(("amount", -0.99),))
    outside = Stub(name="shift", settings=(("amount", -1.01),))
    assert evaluate(model, inside, THREAT, data).robust_accuracy == 0.0
    assert evaluate(model, outside, THREAT, data).robust_accuracy == 1.0


def test_nan_images_have_no_verdict() -> None:
    outcome = judged(Stub(name="nan"), PROBLEM, THREAT)
    assert all(r.error and not r.robust for r in outcome.records)
    assert torch.equal(outcome.adversarials, PROBLEM.data.x)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fail", "RuntimeError: no luck"),
        ("misshapen", r"images of shape \(12, 1, 1, 6\)"),
        ("nothing", "NoneType"),
    ],
)
def test_a_failure_inside_a_library_names_it(name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"stub:{name}\(\) failed inside stub.*{complaint}"):
        judged(Stub(name=name), PROBLEM, THREAT)


def test_targeted_goals_reach_the_library() -> None:
    weight = torch.eye(3).repeat_interleave(2, 1)
    x = torch.full((4, 1, 2, 3), 0.5) + 0.001 * torch.arange(3).repeat_interleave(2).reshape(2, 3)
    problem = Problem(Linear(weight), Dataset(x, torch.full((4,), 2)))
    outcome = judged(Stub(name="ascend"), problem, THREAT, goal=Targeted(0))
    assert outcome.robust_accuracy == 0.0
    with torch.no_grad():
        assert problem.model(outcome.adversarials).argmax(1).tolist() == [0] * 4


# ---- what it costs ---------------------------------------------------------------------------


def oracle_of(model: nn.Module, slots: int, threat: Lp = THREAT, eot: int = 1) -> Oracle[Lp]:
    x = torch.full((slots, 1, 2, 2), 0.5)
    y = torch.zeros(slots, dtype=torch.long)
    return Oracle(Passes(Classifier(model), eot=eot), threat, x, y, classes=2)


LINEAR = Linear(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))


def test_rows_are_charged_in_equal_parts_rounded_up() -> None:
    oracle = oracle_of(LINEAR, 3)
    with lend(oracle) as module:
        x = torch.rand(7, 1, 2, 2, requires_grad=True)
        logits = module(x)
        logits.sum().backward(retain_graph=True)
        logits[:2].sum().backward()
        with torch.no_grad():
            module(x[:3])
        assert module(x[:0]).shape == (0, 2)
    assert oracle.ledger.queries.tolist() == [4, 4, 4]  # 7 + 3 of 3 slots
    assert oracle.ledger.backwards.tolist() == [5, 5, 5]  # 7 + 7 of 3 slots


def test_averaged_passes_cost_as_many() -> None:
    oracle = oracle_of(LINEAR, 2, eot=5)
    with lend(oracle) as module:
        module(torch.rand(2, 1, 2, 2, requires_grad=True)).sum().backward()
    assert oracle.ledger.queries.tolist() == [5, 5]
    assert oracle.ledger.backwards.tolist() == [5, 5]


def test_the_queries_told_are_those_that_the_model_saw() -> None:
    attack = build("torchattacks:PGD", steps=7)
    idle = Recorder(PROBLEM.model)
    wrong = replace(PROBLEM.data, y=(PROBLEM.data.y + 1) % 5)
    evaluate(idle, attack, THREAT, wrong)  # what the judge asks on its own account
    recorder = Recorder(PROBLEM.model)
    outcome = evaluate(recorder, attack, THREAT, PROBLEM.data)
    checked = sum(r.size is not None for r in outcome.records)
    assert sum(r.queries for r in outcome.records) == recorder.rows - idle.rows - checked
    assert {(r.queries, r.backwards) for r in outcome.records} == {(8, 7)}


def test_a_cap_on_queries_is_refused() -> None:
    capped = replace(THREAT, queries=100)
    assert Stub(name="shift").supports(THREAT)
    assert not Stub(name="shift").supports(capped)
    with pytest.raises(UnsupportedError, match="cap"), lend(oracle_of(LINEAR, 2, capped)):
        pass


# ---- what it may see and touch ---------------------------------------------------------------


def test_no_more_is_given_than_the_access_allows() -> None:
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    given = {}
    for access in Access:
        with lend(oracle_of(LINEAR, 2, replace(THREAT, access=access))) as module:
            given[access] = module(x)
    assert given[Access.GRADIENTS].requires_grad
    assert not given[Access.SCORES].requires_grad
    assert torch.equal(given[Access.SCORES], given[Access.GRADIENTS])
    assert torch.equal(given[Access.DECISIONS].sort(1).values, torch.tensor([[0.0, 1.0]] * 5))
    assert torch.equal(given[Access.DECISIONS].argmax(1), given[Access.SCORES].argmax(1))


def test_nan_logits_are_put_down_to_the_slot_or_to_all() -> None:
    class Sore(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, :2]
            return torch.where(first > 0.9, torch.nan, first)

    rows = torch.full((3, 1, 2, 2), 0.5)
    rows[1] = 0.95
    for asked, marked in (
        (rows, [False, True, False]),
        (rows[:2], [True] * 3),
        (rows + 1.0, [False] * 3),  # outside the box is the asker's own fault
    ):
        oracle = oracle_of(Sore(), 3)
        with lend(oracle) as module:
            module(asked)
        assert oracle.ledger.invalid.tolist() == marked


def test_nothing_in_the_process_or_the_model_changes(capsys) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 5))
    x = PROBLEM.data.x
    data = Dataset(x, model.eval()(x).argmax(1))
    model.train()
    model[2].bias.requires_grad_(False)
    handlers = list(logging.getLogger().handlers)
    before = surroundings()
    evaluate(model, Stub(name="vandal"), THREAT, data)
    after = surroundings()
    assert before == after
    assert logging.getLogger().handlers == handlers
    assert [m.training for m in model.modules()] == [True] * 4
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    assert [p.grad for p in model.parameters()] == [None, None]
    judged(Stub(name="shift", settings=(("loudly", True),)), PROBLEM, THREAT)
    assert capsys.readouterr() == ("", "")


def surroundings() -> list[object]:
    return [
        torch.get_rng_state().tolist(),
        str(np.random.get_state(legacy=False)),
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    ]


def test_generators_are_seeded_inside_and_put_back_afterwards() -> None:
    before = surroundings()
    drawn = []
    for seed in (5, 5, 6):
        with isolated(seed, torch.device("cpu")):
            drawn.append([float(torch.rand(1)), np.random.rand(), random.random()])
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    assert surroundings() == before


def test_images_and_labels_are_lent_as_copies() -> None:
    oracle = oracle_of(LINEAR, 3)
    x, y = oracle.x.clone(), oracle.y.fill_(1).clone()
    rng = Rng(torch.arange(3))
    Stub(name="vandal").step(oracle, oracle.x, oracle.y, rng, Walk(oracle.x))
    assert torch.equal(oracle.x, x)
    assert torch.equal(oracle.y, y)


def test_the_module_that_is_lent_hides_the_model() -> None:
    module = Lent(Passes(Classifier(LINEAR)), Access.GRADIENTS, 2, 1)
    assert [len(p) for p in module.parameters()] == [1]
    assert list(module.children()) == []


def test_random_numbers_are_a_function_of_seed_and_samples() -> None:
    attack = Stub(name="noise")
    wide = replace(THREAT, eps=0.3)
    runs = []
    for noise, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        runs.append(judged(attack, PROBLEM, wide, seed=seed).adversarials)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], PROBLEM.data.x)


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
