"""Is a model less robust than it was? Sample by sample, with three answers.

python gate_a_model.py                                    # the library alone
pytest gate_a_model.py --rbl-update-baseline              # once: writes robustness.json
pytest gate_a_model.py                                    # in continuous integration
"""

# %% The model as it was, and after somebody trained it on three images a class.
import os

import torch
from torch import nn

from robustbench_lite import Dataset, Lp, Norm, Split, evaluate, load_attack, load_data
from robustbench_lite.gate import Counts, Rule, decided
from robustbench_lite.pytest_plugin import Robustness


class NearestMean(nn.Module):
    """An image belongs to the class whose mean it is nearest to."""

    def __init__(self, train: Dataset) -> None:
        super().__init__()
        means = [train.x[train.y == k].flatten(1).mean(0) for k in range(10)]
        self.register_buffer("means", torch.stack(means))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 10) logits."""
        return -(x.flatten(1)[:, None] - self.means).square().sum(2)


def trained(per_class: int | None = None) -> NearestMean:
    """The model from all training images, or from a few of each class."""
    train = load_data("digits", Split.TRAIN)
    return NearestMean(train if per_class is None else train.each_class(per_class))


# %% With the library: two runs on the same samples, and a rule.
def compare(before: nn.Module, after: nn.Module) -> None:
    """Print what the gate says of robust accuracy."""
    data = load_data("digits").sample(200)
    attack, threat = load_attack("verdict", effort="quick"), Lp(Norm.LINF, 0.1)
    pairs = [
        (a.robust, b.robust)
        for a, b in zip(
            evaluate(before, attack, threat, data).records,
            evaluate(after, attack, threat, data).records,
            strict=True,
        )
    ]
    counts = Counts(
        name="verdict",
        lost=sum(was and not now for was, now in pairs),
        gained=sum(now and not was for was, now in pairs),
        n=len(pairs),
        before=sum(was for was, _ in pairs),
    )
    (finding,) = decided([counts], Rule(margin=0.02))
    print(
        f"{finding.answer}: robust {counts.before} of {counts.n}, now {counts.after}; "
        f"drop {finding.low:+.1%} to {finding.high:+.1%}, p {finding.p:.2g}"
    )


# %% With pytest: the baseline is a file that is kept with the code.
def test_as_robust_as_it_was(robustness: Robustness) -> None:
    """`IMAGES=3 pytest gate_a_model.py` plays the careless change."""
    images = os.environ.get("IMAGES")
    model = trained(int(images) if images else None)
    assert robustness.regression(model, "digits", "robustness.json", eps=0.1, n=200)


# %%
if __name__ == "__main__":
    compare(trained(), trained())
    compare(trained(), trained(per_class=3))
