"""Several models as one (Tramer et al. 2020, arXiv:2002.08347, on why that is no defense yet)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Wrapping
from robustbench_lite.errors import InputError
from robustbench_lite.models import load_model
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class Ensemble(Wrapping):
    """The mean of the class probabilities of this model and of others.

    It can be differentiated, so an attack on the whole is adaptive already.

    Args:
        others: registered models or files, separated by commas.
    """

    others: Annotated[str, Field(min_length=1)]

    def wrap(self, classifier: Classifier) -> Classifier:
        """Logits are the logarithms of the mean probabilities.

        Raises:
            InputError: a model cannot be loaded, or has other images or classes.
        """
        members = [load_model(name, naive=classifier.naive) for name in self.others.split(",")]
        return _Mean([classifier, *members])


class _Mean(Classifier):
    def __init__(self, members: list[Classifier]) -> None:
        super().__init__(nn.Module(), classes=members[0].classes, name=members[0].name)
        self.members = nn.ModuleList(members)
        self.access = min(member.access for member in members)
        self.randomized = any(member.randomized for member in members)
        self.naive = any(member.naive for member in members)

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        answers: list[Tensor] = []
        for number, member in enumerate(self.members):
            own = None if rng is None else rng.branch(number)
            answers.append(member(x, own).log_softmax(1))
        if len({answer.shape[1] for answer in answers}) > 1:
            counts = ", ".join(str(answer.shape[1]) for answer in answers)
            raise InputError(f"the ensemble's models have {counts} classes; give equal ones")
        return torch.stack(answers).logsumexp(0) - torch.tensor(float(len(answers))).log()
