"""One wrapper a library: the same images and settings in, adversarial examples out.

Each wrapper is called outside the clock and returns what is timed. Everybody gets the plain
eval-mode classifier, which takes images in [0, 1] and returns logits; nobody gets a batch size,
step size or number of steps of its own. Whatever else a library offers stays at its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from rounds import Run
from subject import Subject
from torch import Tensor, nn

from robustbench_lite.judge import evaluate
from robustbench_lite.results import Outcome
from robustbench_lite.threat import Lp, Norm


@dataclass(frozen=True)
class Linf:
    """PGD in the Linf ball: eps and step are absolute, the start is random."""

    eps: float
    step: float
    steps: int


@dataclass(frozen=True)
class Search:
    """Carlini and Wagner's L2 attack: `searches` values of c, `steps` moves for each."""

    searches: int
    steps: int


Settings = Linf | Search
Build = Callable[[Subject, Any], Run]


def present(builds: Mapping[str, tuple[str, Build]]) -> tuple[dict[str, Build], list[str]]:
    """The wrappers whose module is installed, and the names of the others."""
    here = {name: build for name, (module, build) in builds.items() if find_spec(module)}
    return here, [name for name in builds if name not in here]


def _batched(subject: Subject, attack: Callable[[Tensor, Tensor], Tensor]) -> Run:
    def run(_round: int) -> Tensor:
        return torch.cat([attack(x, y) for x, y in subject.batches()])

    return run


# ---- ours ------------------------------------------------------------------------------------


def our_pgd(subject: Subject, settings: Linf, seed: int, *, early_leave: bool) -> Outcome:
    """The whole of evaluate(): clean pass, preparation, attack, verification, records."""
    from rbl_attacks import PGD

    attack = PGD(steps=settings.steps, step_size=settings.step / settings.eps)
    return evaluate(
        subject.model,
        attack,
        Lp(Norm.LINF, settings.eps),
        subject.data,
        seed=seed,
        batch_size=subject.batch,
        early_leave=early_leave,
    )


def our_cw(subject: Subject, settings: Search) -> Run:
    """The whole of evaluate() with CW; its searches take their shares of the steps."""
    from rbl_attacks import CW

    attack = CW(steps=settings.searches * settings.steps, searches=settings.searches)

    def run(seed: int) -> Tensor:
        threat, batch = Lp(Norm.L2), subject.batch
        outcome = evaluate(subject.model, attack, threat, subject.data, seed=seed, batch_size=batch)
        return outcome.adversarials

    return run


# ---- torchattacks: attack(images, labels), batches by the user ---------------------------------


def torchattacks_pgd(subject: Subject, settings: Linf) -> Run:
    """Attacks all images for all steps and returns the last iterate."""
    import torchattacks

    attack = torchattacks.PGD(
        subject.model,
        eps=settings.eps,
        alpha=settings.step,
        steps=settings.steps,
        random_start=True,
    )
    return _batched(subject, attack)


def _torchattacks_cw(subject: Subject, steps: int) -> Run:
    import torchattacks

    return _batched(subject, torchattacks.CW(subject.model, c=1, steps=steps))


def torchattacks_cw_long(subject: Subject, settings: Search) -> Run:
    """It has no search for c (c=1): one descent with the whole budget.

    Its stop on a batch whose cost rose from one tenth of the steps to the next has no switch.
    """
    return _torchattacks_cw(subject, settings.searches * settings.steps)


def torchattacks_cw_short(subject: Subject, settings: Search) -> Run:
    """As it is commonly used: c=1 and as many steps as one search of the others."""
    return _torchattacks_cw(subject, settings.steps)


# ---- foolbox: PyTorchModel, attack(model, x, y, epsilons=...), batches by the user -------------


def _foolbox(subject: Subject, attack: Any, eps: float | None) -> Run:
    import foolbox

    model = foolbox.PyTorchModel(subject.model, bounds=(0, 1), device=subject.x.device)

    def one(x: Tensor, y: Tensor) -> Tensor:
        _, clipped, _ = attack(model, x, y, epsilons=eps)
        return clipped  # type: ignore[no-any-return]

    return _batched(subject, one)


def foolbox_pgd(subject: Subject, settings: Linf) -> Run:
    """Attacks all images for all steps; its call also checks the result once."""
    import foolbox

    attack = foolbox.attacks.LinfPGD(
        abs_stepsize=settings.step, steps=settings.steps, random_start=True
    )
    return _foolbox(subject, attack, settings.eps)


def foolbox_cw(subject: Subject, settings: Search) -> Run:
    """Default: abort_early=True (no progress of the batch's summed loss), c from 0.001.

    Where it finds nothing it returns a black image, which may well be misclassified. That is not a
    result of its search, so it is handed on as the image itself and counts as a failure.
    """
    import foolbox

    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=settings.searches, steps=settings.steps
    )
    inner = _foolbox(subject, attack, None)

    def run(seed: int) -> Tensor | None:
        adv = inner(seed)
        assert adv is not None  # _batched always returns images
        black = (adv == 0).flatten(1).all(1)
        return torch.where(black.reshape(-1, 1, 1, 1), subject.x, adv)

    return run


# ---- ART: PyTorchClassifier, attack.generate(x=numpy, y=numpy), batches by itself --------------


def art_classifier(model: nn.Module, x: Tensor) -> Any:
    """The model as ART wants it, for images like `x` (N, C, H, W)."""
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = int(model(x[:1]).shape[1])
    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if x.device.type == "cpu" else "gpu",
    )


def _art(subject: Subject, attack: Any) -> Run:
    x, y = subject.x.numpy(), subject.y.numpy()

    def run(_round: int) -> Tensor:
        return torch.from_numpy(attack.generate(x=x, y=y))

    return run


def art_pgd(subject: Subject, settings: Linf) -> Run:
    """One random start; progress bars off. generate() itself measures its success at the end."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    attack = ProjectedGradientDescentPyTorch(
        art_classifier(subject.model, subject.x),
        eps=settings.eps,
        eps_step=settings.step,
        max_iter=settings.steps,
        num_random_init=1,
        batch_size=subject.batch,
        verbose=False,
    )
    return _art(subject, attack)


def art_cw(subject: Subject, settings: Search) -> Run:
    """Default line search and c from 0.01; the batch size of the others instead of its 1."""
    from art.attacks.evasion import CarliniL2Method

    attack = CarliniL2Method(
        art_classifier(subject.model, subject.x),
        binary_search_steps=settings.searches,
        max_iter=settings.steps,
        batch_size=subject.batch,
        verbose=False,
    )
    return _art(subject, attack)


# ---- adv-lib: functions of (model, inputs, labels), batches by the user ------------------------


def adv_lib_pgd(subject: Subject, settings: Linf) -> Run:
    """Keeps the latest adversarial iterate; the point after the last move is never asked about."""
    from adv_lib.attacks import pgd_linf

    def one(x: Tensor, y: Tensor) -> Tensor:
        return pgd_linf(  # type: ignore[no-any-return]
            subject.model,
            x,
            y,
            settings.eps,
            steps=settings.steps,
            random_init=True,
            absolute_step_size=settings.step,
        )

    return _batched(subject, one)


def adv_lib_cw(subject: Subject, settings: Search) -> Run:
    """Default: abort_early=True (no image of the batch makes progress), c from 0.001."""
    from adv_lib.attacks import carlini_wagner_l2

    def one(x: Tensor, y: Tensor) -> Tensor:
        return carlini_wagner_l2(  # type: ignore[no-any-return]
            subject.model,
            x,
            y,
            binary_search_steps=settings.searches,
            max_iterations=settings.steps,
        )

    return _batched(subject, one)


PGD_PEERS: dict[str, tuple[str, Build]] = {
    "torchattacks": ("torchattacks", torchattacks_pgd),
    "foolbox": ("foolbox", foolbox_pgd),
    "art": ("art", art_pgd),
    "adv-lib": ("adv_lib", adv_lib_pgd),
}
CW_PEERS: dict[str, tuple[str, Build]] = {
    "foolbox": ("foolbox", foolbox_cw),
    "adv-lib": ("adv_lib", adv_lib_cw),
    "art": ("art", art_cw),
    "torchattacks-long": ("torchattacks", torchattacks_cw_long),
    "torchattacks-short": ("torchattacks", torchattacks_cw_short),
}
