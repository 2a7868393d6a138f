"""Every registered attack, ours or an installed stranger's, against every check."""

from inspect import isclass

import pytest

from robustbench_lite import Attack, Cascade, Loss, Lp, Norm, Restarts, load_attack
from robustbench_lite.registry import Kind, find, registered
from robustbench_lite.testing import CHECKS, assert_conforms, check_attack, run_check
from robustbench_lite.threat import Access


def _on_trial() -> list[str]:
    """Attacks and the verdict; fixed plans and other libraries' attacks are no classes."""
    found = {name: find(Kind.ATTACKS, name) for name in registered(Kind.ATTACKS)}
    return [name for name, thing in found.items() if isclass(thing)]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", _on_trial())
def test_attack_keeps_its_promise(name: str, check: str) -> None:
    result = run_check(check, load_attack(name))
    assert result.passed, result.detail


@pytest.mark.parametrize("name", ["fgsm", "pgd", "cw"])
def test_no_check_of_a_gradient_attack_is_vacuous(name: str) -> None:
    attack = load_attack(name)
    for check in ("finds_something", "targeted", "binary_images", "examples_hold"):
        detail = run_check(check, attack).detail
        assert not detail.startswith(("0", "not applicable")), f"{check}: {detail}"


@pytest.mark.parametrize("check", ["class_counts", "shifted_logits", "scaled_logits", "targeted"])
@pytest.mark.parametrize("loss", list(Loss))
def test_every_loss_keeps_the_promises_about_logits(loss: Loss, check: str) -> None:
    for attack in (load_attack("pgd", steps=20, loss=loss), load_attack("fgsm", loss=loss)):
        result = run_check(check, attack)
        assert result.passed, result.detail
        assert not result.detail.startswith("not applicable")


@pytest.mark.parametrize("check", CHECKS)
def test_several_squares_at_once_keep_the_promises(check: str) -> None:
    result = run_check(check, load_attack("square", steps=250, at_once=8))
    assert result.passed, result.detail


def test_composed_plans_keep_the_promises() -> None:
    quick: Attack = load_attack("pgd", steps=5)
    threats = [Lp(Norm.LINF, 0.02)]
    assert_conforms(Cascade(load_attack("fgsm"), Restarts(quick, 2)), threats)


def test_an_attack_that_never_moves_does_not_conform() -> None:
    still = load_attack("pgd", steps=2, step_size=1e-30, random_start=False)
    with pytest.raises(AssertionError, match="promises") as failure:
        assert_conforms(still, [Lp(Norm.LINF, 0.02)])
    assert "FAIL finds_something" in str(failure.value)
    assert "FAIL binary_images" in str(failure.value)


def test_an_attack_without_an_lp_norm_is_told_so() -> None:
    results = check_attack(load_attack("pgd"), threats=[])
    assert [check.name for check in results] == list(CHECKS)
    assert all(check.detail.startswith("not applicable") for check in results)


def test_threats_are_taken_as_given() -> None:
    scores_only = [Lp(Norm.L2, 0.1, Access.SCORES)]
    result = run_check("finds_something", load_attack("pgd"), scores_only)
    assert not result.passed
    assert "UnsupportedError" in result.detail
