"""RayS and the boundary attack, step by step."""

from itertools import pairwise

import torch
from rbl_attacks.boundary import Boundary
from rbl_attacks.rays import RayS
from torch import Tensor, nn

from robustbench_lite import Classifier, Lp, Norm, Rng
from robustbench_lite.geometry import flat_norm
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.testing.models import Linear, signed_weights


def asking(model: nn.Module, threat: Lp, x: Tensor) -> Oracle[Lp]:
    return Oracle(Passes(Classifier(model)), threat, x, torch.zeros(len(x)).long(), 2)


class Sure(Linear):
    """As Linear, with class 0 so far ahead that nothing fools it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([1000.0, 0.0])


def test_rays_turns_every_component_and_asks_about_no_empty_block() -> None:
    """35 components do not halve evenly: the last blocks of a stage would be empty."""
    x = torch.full((1, 1, 5, 7), 0.5)
    model = Sure(signed_weights(2, 35, 3))
    oracle, keys = asking(model, Lp(Norm.LINF, 0.1), x), torch.arange(1)
    state = RayS().start(oracle, x, oracle.y, Rng(keys))
    places = [state.adv]
    for step in range(1, 201):
        rng = Rng(keys, torch.tensor([step]))
        state = RayS().step(oracle, x, oracle.y, rng, state)
        places.append(state.adv)
    for before, after in pairwise(places):
        assert not torch.equal(before, after)
    signs = torch.cat(places) - 0.5
    singles = (signs < 0).flatten(1)
    assert bool(singles[singles.sum(1) == 1].any(0).all())


def test_the_boundary_attack_tells_its_two_kinds_of_steps_apart() -> None:
    """A step sideways keeps the distance, one inward shortens it; they alternate from the first."""
    x = torch.full((1, 1, 4, 4), 0.5)
    weight = torch.zeros(2, 16)

    class Always(Linear):
        def forward(self, images: Tensor) -> Tensor:
            away = (images - 0.5).flatten(1).norm(dim=1)
            return torch.stack([0.05 - away, away - 0.05], 1)

    oracle = asking(Always(weight), Lp(Norm.L2), x)
    attack = Boundary(sideways=0.01, inward=0.01)
    keys = torch.arange(1)
    state = attack.start(oracle, x, oracle.y, Rng(keys))
    kinds = []
    for step in range(1, 40):
        walks = int(state.phase) > 10
        before = state
        state = attack.step(oracle, x, oracle.y, Rng(keys, torch.tensor([step])), state)
        if walks:
            went = float(flat_norm(before.adv - x, Norm.L2) / flat_norm(before.best - x, Norm.L2))
            inward = went < 1 - 1e-4
            kinds.append(inward)
            changed = (state.inward != before.inward, state.sideways != before.sideways)
            assert [bool(c) for c in changed] == [inward, not inward]
    assert kinds[:6] == [False, True] * 3
