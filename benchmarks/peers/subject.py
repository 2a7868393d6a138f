"""What is attacked: the model, the images, and the one check that every contender is held to."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError
from robustbench_lite.models import load_model
from robustbench_lite.registry import load_data
from robustbench_lite.threat import Lp, Norm

_ROOT = Path(__file__).resolve().parents[2]
_CIFAR = _ROOT.parent / "shared" / "data" / "cifar10_test.npz"
_CELLS = Path(__file__).with_name("cells")


@dataclass(frozen=True, eq=False)
class Subject:
    """The model as loaded (eval mode, takes [0, 1], gives logits), the images, the batch size."""

    model: nn.Module
    data: Dataset
    batch: int
    state: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the parameters and buffers: peers have been seen to change them."""
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        object.__setattr__(self, "state", state)

    @property
    def x(self) -> Tensor:
        """(N, C, H, W) images in [0, 1]."""
        return self.data.x

    @property
    def y(self) -> Tensor:
        """(N,) labels."""
        return self.data.y

    @property
    def classes(self) -> int:
        """How many logits the model gives."""
        return int(self.logits(self.x[:1]).shape[1])

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Images and labels, cut up as every contender that takes batches gets them."""
        parts = torch.split(self.x, self.batch), torch.split(self.y, self.batch)
        return list(zip(*parts, strict=True))

    def logits(self, x: Tensor) -> Tensor:
        """(N, classes) what the original model answers, in the contenders' own batches."""
        with torch.no_grad():
            return torch.cat([self.model(part) for part in torch.split(x, self.batch)])

    def correct(self) -> Tensor:
        """(N,) bool: right without an attack."""
        return self.logits(self.x).argmax(1) == self.y

    def fooled(self, adv: Tensor) -> Tensor:
        """(N,) bool: the original model answers wrongly about `adv`, clipped to [0, 1].

        The same function for every contender. Clipping forgives a pixel that is off by rounding.
        """
        logits = self.logits(adv.clamp(0, 1))
        return (logits.argmax(1) != self.y) & torch.isfinite(logits).all(1)

    def forget(self) -> bool:
        """Bring the model back after a contender: eval mode, no gradients, its own state.

        Returns:
            Had a parameter or buffer changed?
        """
        self.model.eval()
        self.model.zero_grad(set_to_none=True)
        now = self.model.state_dict()
        changed = any(not torch.equal(now[name], value) for name, value in self.state.items())
        if changed:
            self.model.load_state_dict(self.state)
        return changed


def add_options(parser: argparse.ArgumentParser, *, n: int, batch: int, repeats: int) -> None:
    """The options that the attack scripts share."""
    parser.add_argument("--model", default="cifar10-resnet-at", help="a name that rbl knows")
    parser.add_argument("--data", default=f"npz:{_CIFAR}", help="as for rbl, such as npz:PATH")
    parser.add_argument("--n", type=int, default=n, help="how many images")
    parser.add_argument(
        "--first",
        type=int,
        default=5000,
        help="number of the first image in the file's test split; tune on others than these",
    )
    parser.add_argument("--batch", type=int, default=batch, help="batch size of every contender")
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds")
    parser.add_argument("--threads", type=int, default=2, help="torch.set_num_threads")
    parser.add_argument(
        "--correct-only",
        action="store_true",
        help="keep only images the model gets right: ours skips the others, the peers do not",
    )
    parser.add_argument(
        "--frozen",
        action="store_true",
        help="hand over a model whose parameters ask for no gradient, as a careful user may do",
    )
    parser.add_argument(
        "--leave-out", nargs="*", default=[], metavar="NAME", help="contenders not to run"
    )
    parser.add_argument(
        "--once",
        nargs="*",
        default=[],
        metavar="NAME",
        help="run these in the first round only (cw.py: art; an empty list for none)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the raw figures")


def parsed_with_ball(
    parser: argparse.ArgumentParser, *, n: int, batch: int, **defaults: str
) -> argparse.Namespace:
    """The options of the scripts that store what they find within one ball."""
    add_options(parser, n=n, batch=batch, repeats=1)
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--eps", default="8/255", help="radius, a number or a fraction")
    parser.add_argument("--cells", type=Path, default=_CELLS, help="where results are stored")
    parser.add_argument("--table", action="store_true", help="print what is stored, run nothing")
    parser.set_defaults(**defaults)
    options = parser.parse_args()
    if Path(options.model).name.startswith("mnist") and "cifar" in options.data:
        options.data = f"npz:{_CIFAR.with_name('mnist.npz')}"
    return options


def ball_of(options: argparse.Namespace) -> Lp:
    """The threat of --norm and --eps."""
    return Lp(Norm(options.norm), float(Fraction(options.eps)))


def load(options: argparse.Namespace) -> Subject:
    """The model and the images of the options; ends the script with a sentence if there are none.

    The parameters keep requires_grad=True unless --frozen is given, because that is what a model
    has after loading and no peer's documentation asks to change it. adv-lib and the PGD of
    torchattacks ask autograd for the input's gradient only, so it costs them nothing; foolbox, ART
    and the CW of torchattacks call backward() and so pay for weight gradients too.
    """
    torch.set_num_threads(options.threads)
    path = Path(options.data.removeprefix("npz:"))
    if options.data.startswith("npz:") and not path.is_file():
        print(f"Skipped: the data file {path} is not here. Give another one with --data.")
        sys.exit(0)
    try:
        whole = load_data(options.data)
        last = options.first + options.n
        if last > len(whole):
            raise InputError(
                f"{options.data} has {len(whole)} images, so images {options.first} to "
                f"{last - 1} are not in it; choose --first and --n"
            )
        model = load_model(options.model).eval().requires_grad_(not options.frozen)
        subject = Subject(model, whole.take(range(options.first, last)), options.batch)
        right = subject.correct()
        if options.correct_only:
            subject = Subject(model, subject.data.take(right.nonzero().flatten()), options.batch)
    except (InputError, OSError, RuntimeError) as error:
        print(f"Cannot start: {error}")
        sys.exit(2)
    return subject
