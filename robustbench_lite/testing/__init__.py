"""The promises that every attack must keep, as checks to run on your own.

All of them::

    from robustbench_lite.testing import assert_conforms
    assert_conforms(MyAttack())

Checks run on tiny reference models, download nothing and take seconds. Each check chooses the
norms that the attack supports. For a test a check::

    @pytest.mark.parametrize("name", CHECKS)
    def test_my_attack(name):
        result = run_check(name, MyAttack())
        assert result.passed, result.detail
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from robustbench_lite.attack import Plan
from robustbench_lite.errors import unknown
from robustbench_lite.testing.exactness import near_linear, near_piecewise, never_below
from robustbench_lite.testing.isolation import (
    access_kept,
    batch_invariant,
    exact_invariant,
    model_untouched,
    process_untouched,
    query_cap,
    repeatable,
)
from robustbench_lite.testing.traps import (
    binary_images,
    scaled_logits,
    shifted_logits,
    zero_gradient,
)
from robustbench_lite.testing.trial import PromiseError, Test, Trial, shortened, threats_of
from robustbench_lite.testing.verdicts import (
    best_is_kept,
    bytes_hold,
    class_counts,
    eps_monotone,
    eps_zero,
    examples_hold,
    failed_return_input,
    finds_something,
    hopeless,
    image_shapes,
    nan_is_an_error,
    targeted,
    wrong_samples,
)
from robustbench_lite.threat import Threat

__all__ = ["CHECKS", "Check", "assert_conforms", "check_attack", "run_check", "threats_of"]

_STEPS = 90
_ORDER: tuple[Test, ...] = (
    finds_something,
    eps_zero,
    eps_monotone,
    examples_hold,
    failed_return_input,
    bytes_hold,
    class_counts,
    image_shapes,
    wrong_samples,
    nan_is_an_error,
    targeted,
    hopeless,
    best_is_kept,
    model_untouched,
    process_untouched,
    batch_invariant,
    exact_invariant,
    repeatable,
    query_cap,
    access_kept,
    shifted_logits,
    scaled_logits,
    binary_images,
    zero_gradient,
    never_below,
    near_linear,
    near_piecewise,
)

CHECKS: Mapping[str, Test] = MappingProxyType({check.__name__: check for check in _ORDER})


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: of the check, a key of CHECKS.
        passed: the promise is kept, or it does not apply.
        detail: what was seen; starts with "not applicable" where the promise does not apply.
    """

    name: str
    passed: bool
    detail: str

    @property
    def verdict(self) -> str:
        """`kept`, `BROKEN` or `-` where it does not apply."""
        if not self.passed:
            return "BROKEN"
        return "-" if self.detail.startswith("not applicable") else "kept"

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.detail}"


def run_check(name: str, attack: Plan, threats: Sequence[Threat] | None = None) -> Check:
    """Run one check; whatever it or the attack raises is a failure.

    Raises:
        InputError: no check has that name.
    """
    if name not in CHECKS:
        raise unknown("check", name, CHECKS)
    chosen = threats_of(attack) if threats is None else tuple(threats)
    if not chosen:
        return Check(name, True, "not applicable: it supports no threat that is known here")
    try:
        with torch.random.fork_rng(devices=[]):  # building a layer draws from torch's generator
            detail = CHECKS[name](Trial(shortened(attack, _STEPS), chosen))
    except PromiseError as failure:
        return Check(name, False, str(failure))
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")
    return Check(name, True, detail)


def check_attack(attack: Plan, threats: Sequence[Threat] | None = None) -> list[Check]:
    """Run every check on an attack, Restarts or a Cascade.

    Args:
        attack: what is on trial; attacks with very many steps are tried with 90.
        threats: where to try it; None for every kind that it supports, at a usual size.
    """
    return [run_check(name, attack, threats) for name in CHECKS]


def assert_conforms(attack: Plan, threats: Sequence[Threat] | None = None) -> None:
    """Raise AssertionError with every failed check."""
    failed = [check for check in check_attack(attack, threats) if not check.passed]
    if failed:
        raise AssertionError(
            "\n".join([f"{attack} breaks {len(failed)} promises:", *map(str, failed)])
        )
