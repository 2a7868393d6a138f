"""What is known of a trained model: a TOML file that lies beside its weights."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from robustbench_lite.errors import UNREADABLE_TOML, InputError
from robustbench_lite.running import Precision
from robustbench_lite.settings import first_problem
from robustbench_lite.threat import Lp, Norm

_MOST = 2**20  # bytes
Scalar = str | int | float | bool


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(_Strict):
    """Everything that decides the weights of a trained model."""

    arch: str
    arch_set: dict[str, Scalar] = Field(default_factory=dict)
    defense: str = "standard"
    defense_set: dict[str, Scalar] = Field(default_factory=dict)
    behind: tuple[str, ...] = ()
    data: str
    exclude: str = ""
    per_class: int = Field(default=0, ge=0)
    init_from: str = ""
    init_sha256: str = ""
    freeze: Literal["none", "backbone"] = "none"
    norm: Norm = Norm.LINF
    eps: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.0, ge=0, le=1)
    augment: Literal["none", "crop", "crop-flip"] = "none"
    cutout: int = Field(default=0, ge=0)
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 128
    processes: PositiveInt = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["one-cycle", "cosine", "steps", "constant"] = "one-cycle"
    lr: PositiveFloat = 0.1
    weight_decay: float = Field(default=5e-4, ge=0)
    average: Literal["ema", "swa"] = "ema"
    ema: float = Field(default=0.995, ge=0, lt=1)
    holdout: int = Field(default=0, ge=0)
    probe: str = ""
    probe_set: dict[str, Scalar] = Field(default_factory=dict)
    patience: int = Field(default=0, ge=0)
    precision: Precision = Precision.FLOAT32
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**63)

    def digest(self) -> str:
        """16 hexadecimal digits that change with any field."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Measured(_Strict):
    """Accuracies on the test data, as the card's author measured them."""

    data: str
    n: PositiveInt
    seed: int
    attack: str
    clean_accuracy: float
    robust_accuracy: float
    robust_ci95: tuple[float, float]


class Profile(_Strict):
    """What an evaluation needs to know of a model.

    `norm` and `eps` are the threat that the model is meant to be measured under, `test_data` the
    data; both are the defaults of `rbl attack`. Where no data are named, the user must. `classes`,
    `channels` and `size` (rows and columns) are 0 where any will do, or nobody knows. `crop` is the
    share of the shorter side that is kept of a photograph, `interpolation` how it is resized.
    """

    name: str
    summary: str = ""
    classes: NonNegativeInt
    channels: NonNegativeInt
    size: NonNegativeInt
    parameters: NonNegativeInt
    test_data: str
    norm: Norm
    eps: float = Field(ge=0)
    crop: float = Field(default=1.0, gt=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def threat(self) -> Lp:
        """The threat that the model is meant to be measured under."""
        return Lp(self.norm, self.eps)


class Card(Profile):
    """A model card; `beside` holds the same measurement of other models."""

    classes: PositiveInt
    channels: PositiveInt
    size: PositiveInt
    parameters: PositiveInt
    train_samples: PositiveInt
    train_ids_sha256: str
    train_minutes: float
    sha256: str
    recipe: Recipe
    measured: Measured
    beside: dict[str, Measured] = Field(default_factory=dict)


def read_card(path: Path) -> Card:
    """The card in a TOML file.

    Raises:
        InputError: the file is missing, is not TOML, or lacks or misspells a field.
    """
    try:
        if path.stat().st_size > _MOST:
            raise InputError(f"model card {path} has over 1 MiB and is none; restore it")
        return Card.model_validate(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise InputError(
            f"model card {path} does not exist; rbl train writes it beside the weights: keep both"
        ) from None
    except UNREADABLE_TOML as error:
        raise InputError(f"model card {path} cannot be read ({error}); restore it") from error
    except ValidationError as error:
        raise InputError(
            f"model card {path}: {first_problem(error)}; correct it, or train the model again"
        ) from error


def card_text(card: Card) -> str:
    """The card as TOML."""
    return _toml(card.model_dump(mode="json", exclude={"crop", "interpolation"}))


def _toml(table: Mapping[str, Any], path: str = "") -> str:
    # JSON's scalars and arrays are TOML's too; the standard library only reads TOML.
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    text = "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in plain.items())
    for key, inner in table.items():
        if isinstance(inner, Mapping) and inner:
            text += f"\n[{path}{key}]\n" + _toml(inner, f"{path}{key}.")
    return text
