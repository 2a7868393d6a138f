"""An attack of another library under our judge: it searches, we count and judge."""

from __future__ import annotations

import importlib
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from inspect import Parameter
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rbl_attacks.peers.isolated import isolated
from rbl_attacks.peers.signature import Setting, checked, parameters_of, scaled_default
from robustbench_lite.attack import Attack, Walk
from robustbench_lite.errors import InputError, RblError, unknown
from robustbench_lite.lending import lend
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng, key_of
from robustbench_lite.threat import Access, Lp, Norm, Threat

_LONGEST = 300


@dataclass(frozen=True)
class Peer:
    """What one attack of a library does, and how it wants to be told.

    Attributes:
        norms: those it works in, and the arguments that tell it which.
        minimal: it shrinks the perturbation, or knows of no eps at all.
        eps: its name for eps; empty if it is told otherwise or not at all.
        scaled: step sizes; their defaults go with the library's default eps and keep that ratio.
        needs: the least access it works with.
        targetable: it can reach for a class.
        zero: it takes an eps of 0.
        pixels: its eps counts pixels, each of which is as many components as there are channels.
        probabilities: it wants probabilities instead of logits.
        blind: untargeted, it must not be told the labels (it would take them for targets).
        batched: it takes several images at once.
    """

    norms: Mapping[Norm, Mapping[str, object]]
    minimal: bool = False
    eps: str = ""
    scaled: tuple[str, ...] = ()
    needs: Access = Access.GRADIENTS
    targetable: bool = True
    zero: bool = True
    pixels: bool = False
    probabilities: bool = False
    blind: bool = False
    batched: bool = True


@dataclass(frozen=True)
class Job:
    """One batch for a library's attack; `y` is to be left or, if `targeted`, to be reached."""

    module: nn.Module
    x: Tensor
    y: Tensor
    targeted: bool
    norm: Norm
    eps: float
    classes: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Foreign(Attack):
    """The attack `name` of a library, with some of its settings; the whole search is one step.

    The library gets the classifier as a module that counts rows, and the batch. What it asks on
    the way is not judged, only what it returns is: images that are not in the box are clipped to
    it, and whatever is outside the threat or does not fool the classifier is no success. All
    slots of a batch are searched together, so where the library mixes them (most do somewhere), a
    sample's outcome depends on its batch-mates; random numbers are a function of the batch's keys.

    Args:
        steps: 1; how many steps the search takes is a setting of the library.
        name: of the attack, as the library calls it.
        settings: arguments of the library, by name. Those that follow from threat, goal, seed and
            model are not among them. A step size that is not given keeps the ratio to eps that it
            has in the library's defaults.
    """

    library: ClassVar[str]
    module: ClassVar[str]
    distribution: ClassVar[str]
    peers: ClassVar[Mapping[str, Peer]]
    reserved: ClassVar[frozenset[str]]

    steps: int = 1
    name: str
    settings: tuple[tuple[str, Setting], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in self.peers:
            raise unknown(f"attack of {self.library}", self.name, self.peers)
        known, reserved = self.parameters(), self.reserved | {self.peer.eps}
        found = checked(f"{self.library}:{self.name}", known, reserved, dict(self.settings))
        object.__setattr__(self, "settings", tuple(found.items()))

    @property
    def peer(self) -> Peer:
        """What the attack does."""
        return self.peers[self.name]

    @property
    def needs(self) -> Access:  # type: ignore[override]  # differs within a library
        """The least access it works with."""
        return self.peer.needs

    @property
    def minimal(self) -> bool:  # type: ignore[override]  # differs within a library
        """It shrinks the perturbation, or knows of no eps."""
        return self.peer.minimal

    @property
    def targetable(self) -> bool:  # type: ignore[override]  # differs within a library
        """It can reach for a class."""
        return self.peer.targetable

    def __str__(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in self.settings)
        return f"{self.library}:{self.name}({values})"

    def supports(self, threat: Threat) -> bool:
        """Its norms, without a cap on queries (the library would not know of it)."""
        if not isinstance(threat, Lp) or threat.queries is not None:
            return False
        if threat.norm not in self.peer.norms:
            return False
        return self.minimal or (threat.eps < math.inf and (threat.eps > 0 or self.peer.zero))

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        """At the image itself."""
        return Walk(x)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        """The library's whole search.

        Raises:
            InputError: the library raised something, or returned no images.
        """
        seed = key_of("peers", *rng.integers(2**31 - 1).tolist()) % 2**31
        threat = oracle.threat
        with lend(oracle) as module, isolated(seed, x.device):
            job = Job(
                module=nn.Sequential(module, nn.Softmax(1)) if self.peer.probabilities else module,
                x=x.detach().clone(),
                y=y.clone(),
                targeted=oracle.targeted,
                norm=threat.norm,
                eps=min(float(threat.eps), _widest(x, threat.norm)),
                classes=oracle.classes,
                seed=seed,
            )
            try:
                adv = torch.as_tensor(self.run(job)).detach().to(x.device, x.dtype)
                if adv.shape != x.shape:
                    raise ValueError(f"images of shape {tuple(adv.shape)} for {tuple(x.shape)}")
            except RblError:
                raise
            except Exception as error:  # somebody else's code may fail in any way
                raise InputError(self._blame(error)) from error
        return Walk(adv.clone())

    @abstractmethod
    def run(self, job: Job) -> Any:
        """The library's images for a job, as a tensor or array."""

    @abstractmethod
    def implied(self, job: Job) -> Mapping[str, object]:
        """Arguments that follow from the job, besides eps and norm; unknown ones are left out."""

    def arguments(self, job: Job) -> dict[str, object]:
        """Everything that the attack is told by name."""
        peer, known = self.peer, self.parameters()
        told = {key: value for key, value in self.implied(job).items() if key in known}
        told |= peer.norms[job.norm]
        if peer.eps:
            told[peer.eps] = max(1, int(job.eps) // job.x.shape[1]) if peer.pixels else job.eps
        if job.eps > 0:
            told |= {n: scaled_default(known, n, peer.eps, job.eps) for n in peer.scaled}
        return told | dict(self.settings)

    def function(self) -> Callable[..., Any]:
        """The library's class or function.

        Raises:
            InputError: the library is not installed, or the installed one has no such attack.
        """
        module = imported(self.module, self.library)
        if not hasattr(module, self.name):
            raise InputError(
                f"the installed {self.library} {self._version()} has no {self.name}; update it"
            )
        return getattr(module, self.name)  # type: ignore[no-any-return]

    def parameters(self) -> dict[str, Parameter]:
        """What `function` takes by name."""
        return parameters_of(self.function())

    def _version(self) -> str:
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "(version unknown)"

    def _blame(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        if len(text) > _LONGEST:
            text = text[:_LONGEST] + "..."
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return (
            f"{self} failed inside {self.library} {self._version()} ({what}); "
            "change its settings or choose another attack"
        )


def imported(module: str, library: str) -> ModuleType:
    """The module of a library.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except Exception as error:  # somebody else's import may fail in any way
        raise InputError(
            f"{library} cannot be imported ({error}); pip install 'robustbench-lite[peers]'"
        ) from error


def _widest(x: Tensor, norm: Norm) -> float:
    """The largest distance in the box."""
    components = float(x[0].numel())
    return {Norm.LINF: 1.0, Norm.L2: math.sqrt(components)}.get(norm, components)
