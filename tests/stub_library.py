"""A library of ours that behaves as badly as any, for the tests of other people's attacks."""

import logging
import random
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rbl_attacks import peers
from rbl_attacks.peers import Foreign, Job, Peer
from torch import Tensor, nn

from robustbench_lite import Lp, Norm, Outcome, evaluate
from robustbench_lite.testing.models import Linear, Problem, conv_problem

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


PROBLEM = conv_problem(12)
THREAT = Lp(Norm.LINF, EPS)
LINEAR = Linear(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
