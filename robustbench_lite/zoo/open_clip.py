"""CLIP models of the package open-clip-torch as zero-shot classifiers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.quiet import quietly
from robustbench_lite.threat import Norm
from robustbench_lite.zoo.clip import chosen

_EPS = 4 / 255
_PROMPT = "a photo of a {}"


class ZeroShot(nn.Module):
    """An image encoder, and for each class the direction that its captions point in.

    Args:
        visual: images (N, C, H, W) as it was trained on, to vectors (N, D).
        classes: (K, D) unit vectors.
        sharpness: what cosines are multiplied by.
        size: rows and columns that the encoder takes.
    """

    def __init__(self, visual: nn.Module, classes: Tensor, sharpness: Tensor, size: int) -> None:
        super().__init__()
        self.visual, self.size = visual, size
        self.register_buffer("classes", classes)
        self.register_buffer("sharpness", sharpness)

    classes: Tensor
    sharpness: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits; images of another size are enlarged first."""
        if x.shape[2:] != (self.size, self.size):
            shape = (self.size, self.size)
            x = functional.interpolate(x, shape, mode="bicubic", antialias=True)
        return self.sharpness * functional.normalize(self.visual(x)) @ self.classes.T


def open_clip(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A CLIP model of open-clip-torch: open_clip:ARCH/TAG?classes=cat,dog&prompts=a photo of a {}.

    TAG names trained weights, which are downloaded, or is a file with them. Classes come in the
    order of the data's labels, or as a file with one a line: classes=@names.txt. Images of another
    size than the model's are enlarged inside: size=32.
    """
    spec = f"open_clip:{argument}"
    arch, _, tag = argument.partition("/")
    if not arch or not tag:
        raise InputError(f"model {spec!r} is not ARCH/TAG; write open_clip:ViT-B-32/openai")
    try:
        import open_clip as package
    except ImportError:
        raise InputError(
            f"model {spec!r} needs open-clip-torch; "
            "install it with pip install 'robustbench-lite[open-clip]'"
        ) from None
    if arch not in package.list_models():
        raise unknown("architecture of open_clip", arch, package.list_models())
    tags = package.list_pretrained_tags_by_model(arch)
    if tag not in tags and not Path(tag).is_file():
        raise unknown(f"tag of {arch}", tag, tags or ("PATH",))
    rest = {k: v for k, v in settings.items() if k != "size"}
    if rest.get("classes", "").startswith("@"):
        rest["classes"] = _lines(Path(rest["classes"][1:]), spec)
    names, prompts = chosen(rest, spec)
    if not names:
        raise InputError(f"model {spec!r} needs its classes; add ?classes=cat,dog")
    size = _size(settings.get("size", ""), spec)
    try:
        with quietly():
            model = package.create_model(arch, pretrained=tag).eval()
    except (OSError, RuntimeError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(
            f"model {spec!r} cannot be loaded ({cause}); go online once, or give a file as TAG"
        ) from error
    tokenizer, visual = package.get_tokenizer(arch), model.visual
    native = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    classifier = Classifier(
        ZeroShot(
            visual,
            _directions(model, tokenizer, names, prompts or [_PROMPT]),
            model.logit_scale.detach().exp(),
            native,
        ),
        mean=visual.image_mean,
        std=visual.image_std,
        classes=names,
    )
    profile = Profile(
        name=spec,
        classes=len(names),
        channels=3,
        size=size or native,
        parameters=sum(p.numel() for p in model.parameters()),
        test_data="",
        norm=Norm.LINF,
        eps=_EPS,
    )
    return classifier.eval(), profile


def _directions(model: Any, tokenizer: Any, names: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """(K, D) unit vectors, each the mean over the prompts (Radford et al. 2021, section 3.1.4)."""
    rows = []
    with torch.no_grad():
        for name in names:
            tokens = tokenizer([prompt.replace("{}", name) for prompt in prompts])
            told: Tensor = model.encode_text(tokens)
            rows.append(functional.normalize(functional.normalize(told).mean(0), dim=0))
    return torch.stack(rows)


def _lines(path: Path, spec: str) -> str:
    try:
        return ",".join(line for line in path.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"model {spec!r}: {path} cannot be read ({error}); check it") from error


def _size(text: str, spec: str) -> int:
    """Rows and columns of the images, 0 where they are the model's."""
    if text and not (text.isdecimal() and int(text)):
        raise InputError(f"model {spec!r}: size={text} is not a number of pixels; write size=32")
    return int(text or 0)
