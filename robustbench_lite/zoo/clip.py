"""Images and text in one space (Radford et al. 2021, arXiv:2103.00020, section 2).

A class is told by captions, so classes and captions can be chosen anew for a trained model.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.models import load_with_profile
from robustbench_lite.rng import Rng
from robustbench_lite.zoo.resnet import resnet

_BYTES = 64
_SHARPNESS = 1 / 0.07  # of the softmax at the start (section 2.5)
_SHARPEST = 100.0
_TEMPLATES = (
    "a photo of a {}|a picture of a {}|an image of a {}|a small photo of a {}|"
    "a blurry photo of a {}|a photo of the {}|this is a {}|{}"
)


class TextEncoder(nn.Module):
    """Convolutions over the bytes of a text (Zhang et al. 2015, arXiv:1509.01626, section 2).

    The largest answer anywhere counts, so that a word tells the same wherever it stands.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width, padding_idx=0)
        self.convolutions = nn.Sequential(
            nn.Conv1d(width, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(2 * width, 2 * width, 5, padding=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(M, out) of bytes (M, 64)."""
        seen: Tensor = self.convolutions(self.embed(tokens).transpose(1, 2))
        largest: Tensor = self.head(seen.amax(2))
        return largest


class ImageText(nn.Module):
    """A classifier whose weights are what its text encoder says of the classes.

    Args:
        names: of each class the words that are true of it, the first of them its name; a word may
            be true of several classes.
        templates: captions with {} in the place of a word.
        image: images (N, C, H, W) to vectors (N, out).
        text: bytes (M, 64) to vectors (M, out).
        out: length of the vectors.
    """

    def __init__(
        self,
        names: Sequence[Sequence[str]],
        templates: Sequence[str],
        image: nn.Module,
        text: nn.Module,
        out: int,
    ) -> None:
        super().__init__()
        self.names, self.templates = names, templates
        self.image, self.text = image, text
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS).log())
        self.told = [[t.replace("{}", words[0]) for t in templates] for words in names]
        self.register_buffer("classes", torch.zeros(len(names), out))

    classes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) logits of images (N, C, H, W): how alike image and class are."""
        classes = self.directions(self.told) if self.training else self.classes
        return self._similarity(x, classes)

    def alike(self, x: Tensor, captions: Sequence[str]) -> Tensor:
        """(N, M) how alike images and captions are, times the sharpness."""
        return self._similarity(x, functional.normalize(self.text(self._tokens(captions))))

    def captions(self, y: Tensor, rng: Rng) -> list[str]:
        """(N,) of each label a random caption that is true of it."""
        template, word = rng.integers(len(self.templates), 1)[:, 0], rng.uniform(1)[:, 0]
        chosen = []
        for label, place, share in zip(y.tolist(), template.tolist(), word.tolist(), strict=True):
            words = self.names[label]
            chosen.append(self.templates[place].replace("{}", words[int(share * len(words))]))
        return chosen

    def true_of(self, captions: Sequence[str], y: Tensor) -> Tensor:
        """(N, M) bool: which captions are true of which labels."""
        every = [{t.replace("{}", w) for t in self.templates for w in ws} for ws in self.names]
        rows = torch.tensor([[c in every[k] for c in captions] for k in range(len(self.names))])
        return rows.to(y.device)[y]

    def directions(self, told: Sequence[Sequence[str]]) -> Tensor:
        """(K, out) unit vectors of K classes, each the mean over its captions (section 3.1.4)."""
        counts = [len(captions) for captions in told]
        tokens = self._tokens([caption for captions in told for caption in captions])
        parts = torch.split(functional.normalize(self.text(tokens)), counts)
        return functional.normalize(torch.stack([part.mean(0) for part in parts]))

    def train(self, mode: bool = True) -> "ImageText":
        """Switch the mode; in eval mode the classes are looked up, not read anew."""
        super().train(mode)
        if not mode:
            with torch.no_grad():
                self.classes.copy_(self.directions(self.told))
        return self

    def _similarity(self, x: Tensor, directions: Tensor) -> Tensor:
        sharpness = self.sharpness.exp().clamp(max=_SHARPEST)
        return sharpness * functional.normalize(self.image(x)) @ directions.T

    def _tokens(self, captions: Sequence[str]) -> Tensor:
        rows = [list(caption.encode()[:_BYTES].ljust(_BYTES, b"\0")) for caption in captions]
        return torch.tensor(rows, device=self.sharpness.device)


def clip(
    classes: int,
    channels: int,
    size: int,
    names: str = "",
    templates: str = _TEMPLATES,
    width: int = 16,
    depth: int = 2,
    out: int = 64,
) -> nn.Module:
    """A residual net for images, and convolutions over the letters of captions.

    Args:
        classes: number of classes that it is trained on.
        channels: channels of the images.
        size: rows and columns of the images; any works.
        names: of each class its name and other words for it, as `plane|aircraft,car,...`; a word
            that stands in several classes is true of all of them.
        templates: captions of the training, separated by |, with {} in the place of a word.
        width: channels of the residual net's first stage, and of a letter.
        depth: blocks a stage.
        out: length of the vectors that are compared.
    """
    words = [entry.split("|") for entry in names.split(",")] if names else []
    if len(words) != classes or not all(all(entry) for entry in words):
        raise ValueError(f"names has {len(words)} classes for {classes}; name each once")
    told = _captions(templates)
    image = resnet(out, channels, size, width, depth)
    return ImageText(words, told, image, TextEncoder(2 * width, out), out)


def _captions(text: str) -> list[str]:
    templates = [part.strip() for part in text.split("|")]
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the caption {template!r} needs {{}} once, in the place of the class")
    return templates


def chosen(settings: Mapping[str, str], spec: str) -> tuple[list[str], list[str]]:
    """The classes and captions of `classes=` and `prompts=`, empty where they are not given.

    Raises:
        InputError: another setting, fewer than two classes, one of them twice, or a caption
            without a place for the class.
    """
    for key in settings:
        if key not in ("classes", "prompts"):
            raise unknown(f"setting of {spec!r}", key, ("classes", "prompts"))
    names = [name.strip() for name in settings.get("classes", "").split(",")]
    if "classes" in settings and (len(names) < 2 or not all(names) or len({*names}) < len(names)):
        raise InputError(
            f"model {spec!r}: classes={settings['classes']} is not two classes or more, each once; "
            "write classes=cat,dog"
        )
    try:
        prompts = _captions(settings["prompts"]) if "prompts" in settings else []
    except ValueError as error:
        raise InputError(f"model {spec!r}: {error}; write prompts=a photo of a {{}}") from error
    return names if "classes" in settings else [], prompts


def zero_shot(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """An image-text model of ours with other words: clip:NAME?prompts=a photo of a {}&classes=...

    Several prompts are separated by |, classes by commas, in the order of the data's labels.
    """
    spec = f"clip:{argument}"
    names, prompts = chosen(settings, spec)
    classifier, profile = load_with_profile(argument)
    module = classifier.model
    if not isinstance(module, ImageText):
        raise InputError(
            f"model {spec!r}: {argument} has no text encoder; "
            "name a model that was trained with --arch clip"
        )
    names = names or [words[0] for words in module.names]
    told = [[t.replace("{}", name) for t in prompts or module.templates] for name in names]
    long = next((c for captions in told for c in captions if len(c.encode()) > _BYTES), None)
    if long is not None:
        raise InputError(f"model {spec!r}: {long!r} has more than {_BYTES} letters; shorten it")
    module.told = told
    module.classes = module.classes.new_zeros(len(names), module.classes.shape[1])
    classifier.classes = tuple(names)
    return classifier.eval(), profile.model_copy(update={"classes": len(names)})
