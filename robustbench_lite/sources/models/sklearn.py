"""Classifiers of scikit-learn, in files of skops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier, as_logarithms
from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.made import Native, checked_settings, made
from robustbench_lite.sources.models.program import Program, cause_of, chosen, digest_of, file_of
from robustbench_lite.threat import Access

Answer = Literal["decision_function", "predict_proba", "predict"]

_SAVE = "save the classifier with skops.io.dump(classifier, FILE.skops)"
_PICKLES = (".pkl", ".pickle", ".joblib", ".jl")


def sklearn(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A classifier or pipeline of scikit-learn: sklearn:FILE.skops.

    It is saved with skops.io.dump; pickles are refused, as reading them runs code. Types that skops
    does not vouch for are refused, too, until the setting trust=TYPE,TYPE names them: trees and
    forests need trust=sklearn.tree._tree.Tree.

    It takes the pixels of an image in one row, in [0, 1], as `x.reshape(len(x), -1)` gives them.
    Settings: scale=255 (or 16, ...) for one that was trained on 0 to 255; layout=chw if the row
    goes channel by channel; usual is hwc, the order in which images are stored. Its labels are 0 to
    K-1, or texts, which become the names of the classes.

    Attackers see the values of decision_function, else the logarithms of predict_proba, else
    decisions only.

    Raises:
        InputError: there is no such file, skops does not read it or trust what is in it, or it
            holds no classifier of images.
    """
    spec = f"sklearn:{argument}"
    checked_settings(spec, settings, ("scale", "layout", "trust"))
    if argument and Path(argument).suffix in _PICKLES:
        raise InputError(
            f"model file {argument} is a pickle, which can run code when it is read; {_SAVE}"
        )
    path = file_of(spec, argument, _SAVE)
    estimator, content = _read(path, settings.get("trust", ""))
    scale = _scale_of(spec, settings.get("scale", "1"))
    layout = chosen(spec, "layout", settings.get("layout", "hwc"), ("hwc", "chw"))
    names, count = _classes_of(path, estimator)
    told = settings.get("num_classes", str(count))
    if told != str(count):
        raise InputError(
            f"model {spec!r}: num_classes={told}, but the classifier knows {count} classes; "
            "leave num_classes out"
        )
    features = int(getattr(estimator, "n_features_in_", 0))
    answer = _answer_of(estimator, features, count)
    rows = _Rows(spec, estimator, answer, count, features, scale, layout)
    channels, size = _shape_of(features)
    access = Access.DECISIONS if answer == "predict" else Access.SCORES
    native = Native(classes=count, names=names, channels=channels, size=size, access=access)
    program = Program(None, content, ask=rows.ask, what=f"{answer} {scale} {layout}")
    classifier, profile = made(spec, program, settings, native)
    seen = {
        "predict": "decisions only",
        "predict_proba": "scores only: logarithms of predict_proba",
        "decision_function": "scores only: decision_function",
    }
    return classifier, profile.model_copy(update={"summary": seen[answer]})


@dataclass(frozen=True)
class _Rows:
    """How a classifier is asked about images (N, C, H, W)."""

    spec: str
    estimator: Any
    answer: Answer
    classes: int
    features: int
    scale: float
    layout: str

    def ask(self, x: Tensor) -> Tensor:
        """(N, K) scores, or 1 for its decision and -1 for the others."""
        own = x.detach().cpu()
        rows = (own.permute(0, 2, 3, 1) if self.layout == "hwc" else own).reshape(len(own), -1)
        if self.features and rows.shape[1] != self.features:
            raise InputError(
                f"model {self.spec!r} takes {self.features} numbers an image, not the "
                f"{rows.shape[1]} of shape {tuple(x.shape[1:])}; "
                "check that model and data belong together"
            )
        answers = _ask(self.estimator, self.answer, rows.double().numpy() * self.scale)
        if self.answer == "predict":
            known = np.asarray(self.estimator.classes_)
            scores = np.where(answers[:, None] == known[None], 1.0, -1.0)  # no probabilities
        elif answers.ndim == 1:
            scores = np.stack([-answers / 2, answers / 2], 1)  # margins are those of the classifier
        else:
            scores = answers
        logits = torch.from_numpy(np.ascontiguousarray(scores)).float()
        if self.answer == "predict_proba":
            logits = as_logarithms(logits)
        return logits.to(x.device)


def _ask(estimator: Any, answer: Answer, rows: np.ndarray) -> np.ndarray:
    method = getattr(estimator, answer)
    return np.asarray(method(rows))


def _read(path: Path, trust: str) -> tuple[Any, str]:
    try:
        import skops.io
    except ImportError:
        raise InputError(
            "models of scikit-learn need skops; "
            "install it with pip install 'robustbench-lite[sklearn]'"
        ) from None
    content = path.read_bytes()
    try:
        unknown = sorted(skops.io.get_untrusted_types(data=content))
    except Exception as error:  # zip, JSON and skops each have their own for a damaged file
        raise InputError(
            f"model file {path} is no whole file of skops ({cause_of(error)}); {_SAVE}"
        ) from error
    trusted = [name.strip() for name in trust.split(",") if name.strip()]
    missing = [name for name in unknown if name not in trusted]
    if missing:
        raise InputError(
            f"model file {path} holds types that skops does not vouch for ({', '.join(missing)}); "
            f"if you trust its maker, add the setting trust={','.join(unknown)}"
        )
    try:
        estimator = skops.io.loads(content, trusted=unknown)
    except Exception as error:  # as above, and what types do when they are made
        raise InputError(
            f"model file {path} cannot be loaded ({cause_of(error)}); {_SAVE}"
        ) from error
    return estimator, digest_of([("model", content)])


def _classes_of(path: Path, estimator: Any) -> tuple[tuple[str, ...], int]:
    """Names where labels are texts, and how many classes there are."""
    if not hasattr(estimator, "predict") or not hasattr(estimator, "classes_"):
        raise InputError(
            f"model file {path} holds a {type(estimator).__name__}, no fitted classifier; "
            "save what has predict and classes_"
        )
    labels = np.asarray(estimator.classes_)
    if labels.ndim == 1 and len(labels) > 1:
        if labels.dtype.kind in "iub" and labels.tolist() == list(range(len(labels))):
            return (), len(labels)
        if all(isinstance(label, str) for label in labels.tolist()):
            return tuple(labels.tolist()), len(labels)
    raise InputError(
        f"model file {path} has the labels {labels.tolist()!s:.60}; "
        "train it with 0 to K-1, or with texts"
    )


def _answer_of(estimator: Any, features: int, count: int) -> Answer:
    """The finest of its answers that has a value a class."""
    columns = (count,) if count > 2 else (2, 1)
    for answer in ("decision_function", "predict_proba"):
        if not hasattr(estimator, answer):
            continue
        if not features:
            return answer
        values = _ask(estimator, answer, np.zeros((1, features)))
        if (values.shape[1] if values.ndim == 2 else 1) in columns:
            return answer
    return "predict"


def _shape_of(features: int) -> tuple[int, int]:
    """Channels and size of square images with so many pixels, zeros if there are none such."""
    for channels in (1, 3):
        size = isqrt(features // channels)
        if features and channels * size * size == features:
            return channels, size
    return 0, 0


def _scale_of(spec: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"model {spec!r}: scale={text} is not a positive number, such as 255")
    return value
