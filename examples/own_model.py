"""How robust is a model of your own? Here: an image belongs to the class of the nearest mean."""

# %% The model: images (N, C, H, W) in [0, 1] in, logits (N, classes) out.
import torch
from torch import nn

from robustbench_lite import Lp, Norm, Split, evaluate, load_attack, load_data


class NearestMean(nn.Module):
    """Ten means of training images; the logit is minus the squared distance."""

    def __init__(self) -> None:
        super().__init__()
        data = load_data("digits", Split.TRAIN)
        means = [data.x[data.y == k].flatten(1).mean(0) for k in range(10)]
        self.register_buffer("means", torch.stack(means))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 10) logits."""
        return -(x.flatten(1)[:, None] - self.means).square().sum(2)


# %% The verdict at one eps. In a notebook, `outcome` alone shows the figures.
data = load_data("digits").sample(200)
outcome = evaluate(NearestMean(), load_attack("verdict"), Lp(Norm.LINF, 0.1), data)
low, high = outcome.robust_ci95
print(f"clean {outcome.clean_accuracy:.1%}")
print(f"robust {outcome.robust_accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}")
print(f"trust: {outcome.trust}")

# %% An attack that shrinks the perturbation gives every eps in one run.
curve = evaluate(NearestMean(), load_attack("fmn"), Lp(Norm.LINF), data)
for eps in (0.0, 0.05, 0.1, 0.2):
    print(f"eps {eps:<4} robust {curve.robust_accuracy_at(eps):.1%}")

# %% Each sample is on record.
table = outcome.to_pandas()
print(table.groupby("label")["robust"].mean().round(2).to_dict())
