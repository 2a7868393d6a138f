"""How robust is this image classifier, really?

Everything public is here and is imported when it is first used, so that `rbl --help` needs no
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_lite.attack import Attack, Cascade, Restarts, State, Walk
    from robustbench_lite.classifier import Classifier
    from robustbench_lite.data import Dataset, Split
    from robustbench_lite.defense import Training, Wrapping
    from robustbench_lite.errors import InputError, RblError, UnsupportedError, WrongModelError
    from robustbench_lite.goal import Targeted, Untargeted
    from robustbench_lite.judge import evaluate
    from robustbench_lite.loss import Loss
    from robustbench_lite.models import load_model
    from robustbench_lite.oracle import Oracle
    from robustbench_lite.outcomes import worst_case
    from robustbench_lite.registry import load_attack, load_data, load_defense, open_data
    from robustbench_lite.results import Outcome, Record
    from robustbench_lite.rng import Rng
    from robustbench_lite.stream import Stream
    from robustbench_lite.threat import Access, Lp, Norm, Threat

_HOMES = {
    "attack": ("Attack", "Cascade", "Restarts", "State", "Walk"),
    "classifier": ("Classifier",),
    "data": ("Dataset", "Split"),
    "defense": ("Training", "Wrapping"),
    "errors": ("InputError", "RblError", "UnsupportedError", "WrongModelError"),
    "judge": ("evaluate",),
    "goal": ("Targeted", "Untargeted"),
    "loss": ("Loss",),
    "oracle": ("Oracle",),
    "models": ("load_model",),
    "registry": ("load_attack", "load_data", "load_defense", "open_data"),
    "outcomes": ("worst_case",),
    "results": ("Outcome", "Record"),
    "rng": ("Rng",),
    "stream": ("Stream",),
    "threat": ("Access", "Lp", "Norm", "Threat"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Access",
    "Attack",
    "Cascade",
    "Classifier",
    "Dataset",
    "InputError",
    "Loss",
    "Lp",
    "Norm",
    "Oracle",
    "Outcome",
    "RblError",
    "Record",
    "Restarts",
    "Rng",
    "Split",
    "State",
    "Stream",
    "Targeted",
    "Threat",
    "Training",
    "UnsupportedError",
    "Untargeted",
    "Walk",
    "Wrapping",
    "WrongModelError",
    "evaluate",
    "load_attack",
    "load_data",
    "load_defense",
    "load_model",
    "open_data",
    "worst_case",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
