import json
import pickle
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from robustbench_lite import Access, Dataset, Lp, Norm, evaluate
from robustbench_lite.data import Split
from robustbench_lite.errors import InputError
from robustbench_lite.identity import digest_of_model
from robustbench_lite.models import load_model, load_with_profile
from robustbench_lite.registry import load_attack, load_data

skops = pytest.importorskip("skops.io")

TEST = load_data("digits")
NAMES = np.array("zero one two three four five six seven eight nine".split())  # noqa: SIM905


@cache
def training() -> tuple[np.ndarray, np.ndarray]:
    data = load_data("digits", Split.TRAIN)
    return data.x.reshape(len(data), -1).numpy(), data.y.numpy()


def shout(rows):
    return rows


@cache
def classifiers() -> dict:
    rows, labels = training()
    return {
        "forest": RandomForestClassifier(20, random_state=0).fit(rows, labels),
        "svc": make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(rows, labels),
        "logistic": LogisticRegression(max_iter=500).fit(rows, labels),
        "sixteenths": LogisticRegression(max_iter=500).fit(16 * rows, labels),
        "named": RidgeClassifier().fit(rows, NAMES[labels]),
        "centroid": NearestCentroid(metric="manhattan").fit(rows, labels),
        "pairs": SVC(decision_function_shape="ovo").fit(rows, labels),
        "binary": LinearSVC().fit(rows, labels % 2),
        "binary forest": RandomForestClassifier(5, random_state=0).fit(rows, labels % 2),
    }


@pytest.fixture(scope="module")
def specs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("skops")
    for name, fitted in classifiers().items():
        skops.dump(fitted, folder / f"{name}.skops")
    tree = "?trust=sklearn.tree._tree.Tree"
    more = {"sixteenths": "?scale=16", "forest": tree, "binary forest": tree}
    return {n: f"sklearn:{folder / f'{n}.skops'}{more.get(n, '')}" for n in classifiers()}


@pytest.mark.parametrize(
    ("name", "access", "summary"),
    [
        ("forest", Access.SCORES, "scores only: logarithms of predict_proba"),
        ("svc", Access.SCORES, "scores only: decision_function"),
        ("sixteenths", Access.SCORES, "scores only: decision_function"),
        ("named", Access.SCORES, "scores only: decision_function"),
        ("centroid", Access.DECISIONS, "decisions only"),
        ("pairs", Access.DECISIONS, "decisions only"),
        ("binary", Access.SCORES, "scores only: decision_function"),
        ("binary forest", Access.SCORES, "scores only: logarithms of predict_proba"),
    ],
)
def test_decisions_are_those_of_the_classifier(specs, name, access, summary):
    classifier, profile = load_with_profile(specs[name])
    fitted = classifiers()[name]
    count = len(fitted.classes_)
    assert (classifier.access, profile.summary) == (access, summary)
    assert (profile.channels, profile.size, profile.classes) == (1, 8, count)
    rows = TEST.x.reshape(len(TEST), -1).double().numpy()
    decided = fitted.predict(rows * (16 if name == "sixteenths" else 1))
    logits = classifier(TEST.x)
    assert logits.shape == (600, count)
    assert torch.isfinite(logits).all()
    assert np.array_equal(fitted.classes_[logits.argmax(1).numpy()], decided)


def test_scores_are_those_of_the_classifier(specs):
    rows = TEST.x[:50].reshape(50, -1).double().numpy()
    scores = torch.from_numpy(classifiers()["svc"].decision_function(rows)).float()
    assert torch.equal(load_model(specs["svc"])(TEST.x[:50]), scores)
    odd = torch.from_numpy(classifiers()["binary"].decision_function(rows)).float()
    logits = load_model(specs["binary"])(TEST.x[:50])
    assert torch.allclose(logits[:, 1] - logits[:, 0], odd)
    shares = torch.from_numpy(classifiers()["forest"].predict_proba(rows)).float()
    assert torch.allclose(load_model(specs["forest"])(TEST.x[:50]).exp(), shares, atol=1e-6)


def test_texts_are_names_of_classes(specs):
    assert load_model(specs["named"]).classes == tuple(sorted(NAMES))
    assert load_model(specs["svc"]).classes is None


def test_colours_are_rows_as_stored_or_channel_by_channel(tmp_path):
    x = np.random.default_rng(0).random((40, 2, 2, 3))
    y = np.arange(40) % 2
    images = torch.from_numpy(x.transpose(0, 3, 1, 2)).float()
    for layout, rows in (("hwc", x), ("chw", x.transpose(0, 3, 1, 2))):
        fitted = LogisticRegression().fit(rows.reshape(40, -1), y)
        skops.dump(fitted, tmp_path / "c.skops")
        classifier, profile = load_with_profile(f"sklearn:{tmp_path / 'c.skops'}?layout={layout}")
        assert (profile.channels, profile.size) == (3, 2)
        expected = torch.from_numpy(fitted.decision_function(rows.reshape(40, -1))).float()
        logits = classifier(images)
        assert torch.allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-5)


def distances(fitted: LogisticRegression, data: Dataset) -> torch.Tensor:
    """(N,) the exact Linf distance of each image to the nearest other class, without the box."""
    w, b = (torch.from_numpy(v).double() for v in (fitted.coef_, fitted.intercept_))
    logits = data.x.reshape(len(data), -1).double() @ w.T + b
    own = logits.gather(1, data.y[:, None])
    lengths = (w[data.y][:, None] - w[None]).abs().sum(2)
    apart = (own - logits) / lengths.clamp(min=1e-30)
    return apart.scatter(1, data.y[:, None], torch.inf).amin(1)


def test_no_attack_on_a_linear_classifier_finds_less_than_the_exact_distance(specs):
    data = TEST.sample(16)
    exact = distances(classifiers()["logistic"], data)
    model = load_model(specs["logistic"])
    found = evaluate(
        model,
        load_attack("rays"),
        Lp(Norm.LINF, 1.0, access=Access.DECISIONS, queries=2000),
        data,
    )
    ratios = [r.size / float(d) for r, d in zip(found.records, exact, strict=True) if r.correct]
    assert len(ratios) > 12
    assert min(ratios) > 1 - 1e-3
    assert float(np.median(ratios)) < 1.35
    right = [r.correct for r in found.records]
    for eps, least, most in ((0.98 * float(exact[right].min()), 1.0, 1.0), (0.2, 0.0, 0.2)):
        outcome = evaluate(model, load_attack("square", steps=200), Lp(Norm.LINF, eps), data)
        left = [r.robust for r in outcome.records if r.correct]
        assert least <= float(np.mean(left)) <= most


@pytest.mark.parametrize(
    ("name", "attack", "more"),
    [("forest", "square", ()), ("svc", "square", ()), ("forest", "rays", ("--queries", 300))],
)
def test_the_command_attacks_a_classifier(forked_rbl, specs, tmp_path, name, attack, more):
    done = forked_rbl(
        *("attack", "--model", specs[name], "--data", "digits", "--attack", attack, *more),
        *("--n", 30, "--eps", 0.2, "--json", "out.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads((tmp_path / "out.json").read_text())
    some = TEST.sample(30)
    rows = some.x.reshape(30, -1).double().numpy()
    right = float((classifiers()[name].predict(rows) == some.y.numpy()).mean())
    assert outcome["clean_accuracy"] == pytest.approx(right)
    assert outcome["robust_accuracy"] < 0.5 * right
    assert not any("probabilities" in doubt["text"] for doubt in outcome["doubts"])


def test_an_attack_that_needs_more_is_refused(forked_refused, specs):
    attack = ("attack", "--data", "digits", "--n", 4, "--model")
    assert "needs gradients" in forked_refused(*attack, specs["svc"], "--attack", "pgd")
    assert "needs scores" in forked_refused(*attack, specs["centroid"], "--attack", "square")


def test_the_digest_is_that_of_the_file(specs, tmp_path):
    def digest(path: object) -> str:
        model = load_model(f"sklearn:{path}")
        model.name = ""
        return digest_of_model(model)

    path = specs["svc"].partition(":")[2]
    assert digest(path) == digest(shutil.copy(path, tmp_path / "same.skops"))
    changed = LogisticRegression(max_iter=500).fit(*training())
    changed.coef_[0, 0] = np.nextafter(changed.coef_[0, 0], 9)
    skops.dump(changed, tmp_path / "nudged.skops")
    assert digest(tmp_path / "nudged.skops") != digest(specs["logistic"].partition(":")[2])


def test_types_that_skops_does_not_vouch_for_must_be_trusted(tmp_path):
    known = make_pipeline(FunctionTransformer(shout), LogisticRegression(max_iter=500))
    skops.dump(known.fit(*training()), tmp_path / "own.skops")
    spec = f"sklearn:{tmp_path / 'own.skops'}"
    name = f"{shout.__module__}.shout"
    with pytest.raises(InputError) as error:
        load_model(spec)
    assert f"does not vouch for ({name})" in str(error.value)
    assert f"trust={name}" in str(error.value)
    assert load_model(f"{spec}?trust={name}")(TEST.x[:3]).shape == (3, 10)
    with pytest.raises(InputError, match="does not vouch for"):
        load_model(f"{spec}?trust=os.system")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.skops"])
def test_a_pickle_is_not_opened(tmp_path, name):
    sentinel = tmp_path / "sentinel"
    (tmp_path / name).write_bytes(pickle.dumps(Trap(sentinel)))
    with pytest.raises(InputError, match=r"is a pickle, .*skops\.io\.dump"):
        load_model(f"sklearn:{tmp_path / name}")
    assert not sentinel.exists()


def truncated(path: Path) -> None:
    skops.dump(classifiers()["binary"], path)
    path.write_bytes(path.read_bytes()[:500])


def dump(make):
    return lambda path: skops.dump(make(*training()), path)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: None, "does not exist; check the path behind sklearn:"),
        (Path.touch, "is empty; save the classifier with skops.io.dump"),
        (lambda path: path.write_text("net"), "is no whole file of skops"),
        (lambda path: np.savez(path.open("wb"), x=1), "is no whole file of skops"),
        (truncated, "is no whole file of skops"),
        (
            dump(lambda rows, _: KMeans(2, n_init=1).fit(rows)),
            "holds a KMeans, no fitted classifier",
        ),
        (dump(lambda *_: LogisticRegression()), "holds a LogisticRegression, no fitted classifier"),
        (dump(lambda *_: {"a": 1}), "holds a dict, no fitted classifier"),
        (dump(lambda rows, y: RidgeClassifier().fit(rows, y + 1)), "has the labels [1, 2, 3"),
        (
            dump(lambda rows, y: RidgeClassifier().fit(rows, 2 * y)),
            "train it with 0 to K-1, or with texts",
        ),
    ],
)
def test_a_file_that_is_something_else(tmp_path, write, told):
    path = tmp_path / "m.skops"
    write(path)
    with pytest.raises(InputError) as error:
        load_model(f"sklearn:{path}")
    assert told in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("scale=none", "scale=none is not a positive number, such as 255"),
        ("scale=-1", "scale=-1 is not a positive number"),
        ("layout=nchw", "did you mean chw"),
        ("trusted=x", "did you mean trust"),
        ("num_classes=4", "the classifier knows 10 classes; leave num_classes out"),
    ],
)
def test_settings_that_do_not_exist(specs, settings, told):
    with pytest.raises(InputError, match=told):
        load_model(f"{specs['svc']}?{settings}")


def test_images_of_another_shape_are_told_in_one_sentence(forked_refused, specs):
    said = forked_refused(
        *("attack", "--model", f"{specs['svc']}?resize=9", "--data", "digits", "-a", "square")
    )
    assert "takes 64 numbers an image, not the 81 of shape (1, 9, 9)" in said
