"""A model behind an address."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier, Remembering
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.sources.models.made import Native, checked_settings, made, whole_number
from robustbench_lite.sources.models.query_ledger import check, usual_path
from robustbench_lite.sources.models.remote_asking import Asking
from robustbench_lite.sources.models.remote_calls import Calls
from robustbench_lite.sources.models.remote_protocols import Layout, Protocol, Service
from robustbench_lite.threat import Access

T = TypeVar("T")

_ACCESS = {"scores": Access.SCORES, "labels": Access.DECISIONS}
_OWN = (
    *("access", "protocol", "layout", "input", "output", "classes", "batch"),
    *("rate", "timeout", "tries", "backoff", "token", "ledger", "budget"),
)


class Remote(Remembering):
    """A service as a module, with what it answered before on disk.

    Args:
        service: all that decides its answers.
        asking: how it is asked.
    """

    def __init__(self, service: Service, asking: Asking) -> None:
        super().__init__()
        self.service, self.asking = service, asking

    @property
    def afresh(self) -> bool:
        """See `Remembering`."""
        return self.asking.afresh

    @afresh.setter
    def afresh(self, afresh: bool) -> None:
        self.asking.afresh = afresh

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) scores, or 1 for the label and -1 for all others, without a gradient.

        An image (of N, C, H, W) that is not finite cannot be asked about and gets NaN.

        Raises:
            IncompleteError: the service does not answer, or the budget is spent.
            InputError: the service refuses.
        """
        images = np.ascontiguousarray(x.detach().float().cpu().numpy())
        sound = np.isfinite(images).all((1, 2, 3))
        answers = self.asking.answers(images[sound])
        logits = torch.full((len(x), answers.shape[1]), torch.nan)
        logits[torch.from_numpy(sound)] = torch.from_numpy(answers)
        return logits.to(x.device)


def http(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A model behind an http or https address, asked for scores or labels over the network.

    Settings follow after #, as in "http://localhost:8000/predict#access=labels&num_classes=10".
    By default the service is sent JSON as KServe and TensorFlow Serving take it, images as nested
    lists of channels, rows and columns with pixels in [0, 1], and answers with scores or, with
    access=labels, a label for each:

        POST {"instances": [[[[0.0, 0.25], ...], ...], ...]}
        ->   {"predictions": [[-1.5, 4.2, ...], ...]}
        ->   {"predictions": [3, ...]}

    A whole service for a model of your own:

        from fastapi import FastAPI

        app = FastAPI()

        @app.post("/predict")
        def predict(body: dict) -> dict:
            x = torch.tensor(body["instances"])  # (N, C, H, W)
            with torch.no_grad():
                return {"predictions": model(x).tolist()}

    What was answered is never asked again, whatever ends the run: the same command goes on where it
    stopped and pays for the rest only. Processes that share a ledger take turns. Each evaluation
    asks twice about up to 32 images to find out whether the service is random; if it is, every
    question is asked anew. Redirects are not followed, and proxies of the environment are not used.

    protocol     v1 (default), or v2, the Open Inference Protocol:
                 {"inputs": [{"name", "shape", "datatype": "FP32", "data"}]}
                 -> {"outputs": [{"shape", "data"}]}
    layout       nchw (default) or nhwc, the order in which pixels are sent
    access       scores (default) or labels: numbers from 0, or names
    num_classes  how many there are; labels need it, or classes
    classes      names in the order of the classes, as cat,dog, or a .txt
                 file with one a line
    input        v2: the name of the images (default input)
    output       v2: the name of the answers (default: the first)
    batch        images a call (default 32)
    rate         calls a second at the most (default: any number)
    timeout      seconds that a call may take (default 30)
    tries        calls until the run is given up (default 8), after failed
                 connections, 429, 5xx and answers that cannot be used;
                 Retry-After is respected up to a minute
    backoff      seconds before the second try (default 0.5), twice as many
                 before every further one
    token        the environment variable with a bearer token, which is
                 written nowhere
    budget       images that may ever be paid for (default: any number)
    ledger       the file of answers, a row each in the table answers of an
                 SQLite database (default: in ~/.cache/robustbench-lite)

    Args:
        argument: the address.
        settings: see above; also normalize, bounds and resize.

    Raises:
        InputError: the address or a setting cannot be used.
    """
    address, shown = _addresses(argument)
    checked_settings(shown, settings, _OWN)
    names = _names(shown, settings.get("classes", ""))
    access = _chosen(shown, settings, "access", _ACCESS)
    service = Service(
        address=address,
        protocol=_chosen(shown, settings, "protocol", {p.value: p for p in Protocol}),
        layout=_chosen(shown, settings, "layout", {one.value: one for one in Layout}),
        access=access,
        count=_count(shown, settings, names, access),
        names=names,
        input=settings.get("input", "input"),
        output=settings.get("output", ""),
    )
    calls = Calls(
        address,
        shown,
        timeout=_number(shown, settings, "timeout", 30.0),
        tries=whole_number(shown, settings, "tries") or 8,
        backoff=_number(shown, settings, "backoff", 0.5),
        rate=_number(shown, settings, "rate", 0.0),
        token=settings.get("token", ""),
    )
    asking = Asking(
        service,
        calls,
        _ledger(settings.get("ledger", ""), service, shown),
        batch=whole_number(shown, settings, "batch") or 32,
        budget=whole_number(shown, settings, "budget"),
    )
    native = Native(classes=service.count, names=names, access=access)
    return made(shown, Remote(service, asking), settings, native)


def _addresses(argument: str) -> tuple[str, str]:
    """The address, and what messages show of it: no query, which may hold a key."""
    try:
        from urllib3.exceptions import LocationParseError
        from urllib3.util import parse_url
    except ImportError as error:
        raise InputError(
            "a model behind an address needs urllib3; "
            "install it with pip install 'robustbench-lite[http]'"
        ) from error
    try:
        url = parse_url(argument.partition("#")[0])
    except LocationParseError as error:
        raise InputError(
            f"model {argument!r} is no address; write http://host:port/path"
        ) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"model {argument!r} is no address; write http://host:port/path")
    shown = url._replace(query=None, fragment=None, auth=None).url
    if url.auth is not None:
        raise InputError(
            f"model {shown!r}: a name and a password in an address would be shown in tables; "
            "give a bearer token as token=VARIABLE instead"
        )
    return url.url, shown


def _chosen(shown: str, settings: Mapping[str, str], key: str, options: Mapping[str, T]) -> T:
    """The option that a setting names, by default the first."""
    text = settings.get(key, next(iter(options)))
    if text not in options:
        raise unknown(f"{key} of model {shown!r}", text, options)
    return options[text]


def _number(shown: str, settings: Mapping[str, str], key: str, default: float) -> float:
    """A setting above 0."""
    text = settings.get(key, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (text and value <= 0):
        raise InputError(f"model {shown!r}: {key}={text} is not a number above 0")
    return value


def _names(shown: str, text: str) -> tuple[str, ...]:
    if not text.endswith(".txt"):
        names = tuple(filter(None, text.split(",")))
    else:
        try:
            names = tuple(filter(None, Path(text).read_text("utf-8").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"model {shown!r}: classes={text} cannot be read ({error}); give a text file with "
                "a name a line"
            ) from error
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"model {shown!r}: classes names {twice!r} twice; give each once")
    return names


def _count(shown: str, settings: Mapping[str, str], names: tuple[str, ...], access: Access) -> int:
    """How many classes there are, 0 if the scores are to tell."""
    given = whole_number(shown, settings, "num_classes")
    if given and names and given != len(names):
        raise InputError(
            f"model {shown!r}: num_classes={given}, but classes names {len(names)}; "
            "leave out num_classes"
        )
    count = given or len(names)
    if count == 1:
        raise InputError(f"model {shown!r} has one class; a classifier has two or more")
    if not count and access is Access.DECISIONS:
        raise InputError(
            f"model {shown!r}: labels do not tell how many classes there are; give num_classes="
        )
    return count


def _ledger(text: str, service: Service, shown: str) -> Path:
    path = Path(text).expanduser() if text else usual_path(service.digest)
    if text or path.exists():
        check(path, service.digest, shown)
    return path
