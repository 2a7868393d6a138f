"""Every doubt: the sentence as the package says it, what it means, what to do."""

from dataclasses import dataclass

from prose import code, escaped, sections

from robustbench_lite.doubts import doubts_of, too_short
from robustbench_lite.evidence import Evidence, Health, Randomness
from robustbench_lite.trust import Doubt


@dataclass(frozen=True)
class Told:
    """One doubt.

    Attributes:
        title: of its section.
        doubts: as the package would say it of such a run; the first is the example.
        means: what was seen.
        do: what to do about it.
    """

    title: str
    doubts: tuple[Doubt, ...]
    means: str
    do: str


def _seen(**values: object) -> tuple[Doubt, ...]:
    usual = {"n": 500, "classes": 10, "correct": 480, "left": 200}
    return doubts_of(Evidence(**(usual | values)))


EVERY = (
    Told(
        "An attack that does not know of the defense",
        _seen(naive=True),
        "`--naive` was given: the attacker follows the gradient that the defense lets pass.",
        "Leave out `--naive`. The figure shows what the defense hides, nothing else.",
    ),
    Told(
        "A random defense whose answer is a draw",
        _seen(randomness=Randomness.AVERAGED),
        "The defense averages over draws by itself, and its answer is one more draw.",
        "Repeat with other seeds, and say how far the figures lie apart.",
    ),
    Told(
        "A random defense",
        _seen(randomness=Randomness.DECLARED),
        "Equal images get unequal logits. Attackers average gradients over draws, and a sample "
        "counts as right or wrong by the majority of many answers.",
        "Nothing is wrong. Compare with other figures only if they were made in the same way.",
    ),
    Told(
        "A model that turns out to be random",
        _seen(randomness=Randomness.FOUND),
        "The model did not say that it is random, but equal images got unequal logits, perhaps "
        "because dropout or batch statistics stayed on inside.",
        "Put it into eval mode, or make it a defense that draws its numbers from `rng`: then "
        "every figure can be repeated.",
    ),
    Told(
        "Clean accuracy that could be a guess",
        _seen(correct=50),
        "On 100 samples or more the interval of clean accuracy reaches down to chance.",
        "Check what the model expects of pixels (`--normalize`, or `mean`, `std` and `bounds` of "
        "`Classifier`) and the order of its classes (`--class-map`).",
    ),
    Told(
        "Labels that are shifted",
        _seen(correct=5, above=400),
        "Most samples are taken for the class whose number is one higher, or one lower, than "
        "their label's: the data count their classes otherwise than the model.",
        "Give `--class-map`, or the data set whose labels the model was trained on. "
        "`rbl doctor` looks closer.",
    ),
    Told(
        "Outputs that are probabilities",
        _seen(probabilities=True),
        "All outputs lie in [0, 1] and sum to 1. The gradient of a softmax vanishes where the "
        "model is sure, so the attacks worked on the logarithms.",
        "Return logits: leave out the softmax at the end of the model.",
    ),
    Told(
        "Logits that lie far apart",
        _seen(apart=950.0),
        "At such distances the probability of a wrong class is 0 in float32, and cross-entropy "
        "has no gradient. Every loss works on rescaled logits here, so the search goes on.",
        "Nothing needs to be done. Other tools may report robustness that is not there.",
    ),
    Told(
        "Gradients that are zero",
        _seen(health=Health(0.0, 1.0, 8), blind=True),
        "A probe of eight images found no gradient at all on the share that is told.",
        "Give an attack without gradients (`square`; `rays` for labels only), or write a "
        "`stand_in` for the part without a gradient.",
    ),
    Told(
        "Gradients that mislead, and a search without them",
        _seen(health=Health(0.7, 0.0, 8), blind=True),
        "What the gradients foretell and how the margin really differs between nearby images do "
        "not agree (a cosine under 0.9). An attack without gradients was part of the plan.",
        "Look at how many samples only that attack broke; `--effort thorough` gives it more "
        "queries.",
    ),
    Told(
        "Gradients that mislead, and nothing else tried",
        _seen(health=Health(0.3, 0.0, 8)),
        "The same, but only gradients were followed. Under a cosine of 0.5 the figure is no "
        "measurement.",
        "Add `--attack square`, or run the verdict, which adds a search of its own.",
    ),
    Told(
        "Examples that did not hold",
        _seen(unverified=3),
        "The model was asked once more about every adversarial example, and was not fooled by "
        "some. They are not counted.",
        "Look for randomness or for state in the model.",
    ),
    Told(
        "A faster copy that disagrees",
        _seen(disagreed=5),
        "Attacks search on a faster copy of the model, and the model itself has the last word. "
        "The two disagreed more often than rounding explains; these samples were searched again "
        "on the model itself.",
        "Nothing needs to be done; `--precision float32` and no `--compile` bring the copy nearer.",
    ),
    Told(
        "Samples without a verdict",
        _seen(errors=2),
        "The model returned NaN or infinite logits. Such a sample never counts as robust.",
        "Repair the model: `rbl attack --json` names the samples.",
    ),
    Told(
        "Samples that only an attack without gradients broke",
        _seen(blindly=4),
        "Where gradients are sound, they break nearly everything that random search breaks. "
        "Above 0.2 % of the samples this is a warning, above 2 % the figure is no measurement.",
        "Give more queries, or an attack made for this defense.",
    ),
    Told(
        "A search that ended too early",
        _seen(rising=30),
        "On more than 5 % of the survivors the loss was still rising at the last step.",
        "Give more steps (`--set steps=200`), or another `--effort`.",
    ),
    Told(
        "One step that beats many",
        tuple(too_short([(1, 120, "FGSM(steps=1)"), (40, 90, "PGD(steps=40)")], 500)),
        "An attack of a single step left fewer samples than one of many steps, which cannot be "
        "where gradients lead uphill.",
        "Give restarts (`--restarts 5`) or an attack without gradients.",
    ),
)


def doubts() -> str:
    """A section each."""
    return sections(
        part
        for one in EVERY
        for part in (
            f"### {one.title}",
            *(f"> {code(doubt.trust)}: {escaped(str(doubt))}" for doubt in one.doubts),
            one.means,
            f"**What to do.** {one.do}",
        )
    )
