"""What is stored: keys that change with all that decides an outcome, files that tell damage."""

import copy
import hashlib
import importlib
import json
import math
import multiprocessing
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kill import files
from rbl_attacks.fgsm import FGSM
from rbl_attacks.pgd import PGD
from torch import Tensor, nn

from robustbench_lite import Access, Classifier, Dataset, Lp, Norm, identity
from robustbench_lite.attack import Attack, Cascade, Plan, Restarts, Walk
from robustbench_lite.cli.boards import as_json
from robustbench_lite.errors import DamagedError, InputError
from robustbench_lite.executor import InProcess
from robustbench_lite.identity import OF_NO_CONSEQUENCE, digest_of_model
from robustbench_lite.leaderboard import boards_in
from robustbench_lite.models import load_model
from robustbench_lite.registry import Kind, find, load_attack, load_data, registered
from robustbench_lite.run import Contestant, Entry, Tally, entry_of, run
from robustbench_lite.running import Precision
from robustbench_lite.store import Store, merge
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Threat
from robustbench_lite.unit import Unit, compute

BALL = Lp(Norm.LINF, 0.1)
TRIALS = (Trial("fgsm", FGSM(), BALL), Trial("pgd", PGD(steps=3), BALL))
SUITE = Suite("tiny", {"": TRIALS}, n=12, slice=6)
few = settings(max_examples=20, deadline=None)


def tiny(seed: int = 0, name: str = "tiny", mean: float = 0.5) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
        )
    return Classifier(body, mean=[mean], std=[0.5], name=name).eval()


def samples(n: int = 12) -> Dataset:
    chance = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 2, 2, generator=chance)
    with torch.no_grad():
        return Dataset(x, tiny()(x).argmax(1), "squares")


def entries(*models: Classifier, suite: Suite = SUITE, data: Dataset | None = None) -> list[Entry]:
    return [entry_of(suite, Contestant(m), data or samples()) for m in models or (tiny(),)]


def bench(folder: Path, *models: Classifier, **how: Any) -> Tally:
    return run(entries(*models), Store(folder), InProcess(), **how)


def table(folder: Path) -> str:
    return as_json(boards_in(Store(folder)), time=False)


def key(
    model: nn.Module | None = None,
    data: Dataset | None = None,
    attack: Plan | None = None,
    threat: Threat = BALL,
    **changes: Any,
) -> str:
    """Of the unit that attacks all samples."""
    trial = Trial("a", attack or PGD(steps=3), threat)
    suite = replace(Suite("one", {"": (trial,)}, n=100, slice=100), **changes)
    classifier = model if isinstance(model, Classifier) else Classifier(model or tiny(), name="t")
    (unit,) = entry_of(suite, Contestant(classifier), data or samples()).units
    return unit.key


def nudged(tensor: Tensor, place: int, *, up: bool) -> None:
    """Change one number by as little as possible."""
    flat = tensor.detach().view(-1)
    index = place % len(flat)
    if flat.is_floating_point():
        to = torch.tensor(math.inf if up else -math.inf)
        flat[index] = torch.nextafter(flat[index], to)
    else:
        flat[index] += 1


# What decides an outcome.

NUMBERS = [*tiny().state_dict(), "scale", "shift"]


@given(st.sampled_from(NUMBERS), st.integers(0, 7), st.booleans())
@few
def test_a_weight_or_buffer_that_differs_by_one_ulp_changes_the_key(name, place, up):
    model = tiny()
    before = key(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = [v for k, v in tensors.items() if k in (name, f"model.{name}")]
    nudged(found[0], place, up=up)
    assert key(model) != before


@given(st.integers(0, 11), st.integers(0, 3), st.booleans())
@few
def test_a_pixel_that_differs_by_one_ulp_changes_the_key(sample, pixel, up):
    data = samples()
    x = data.x.clone()
    nudged(x[sample], pixel, up=up)
    assert key(data=Dataset(x, data.y, data.name)) != key(data=data)


@given(st.integers(0, 11), st.integers(1, 2))
@few
def test_another_label_changes_the_key(sample, by):
    data = samples()
    y = data.y.clone()
    y[sample] = (y[sample] + by) % 3
    assert key(data=Dataset(data.x, y, data.name)) != key(data=data)


def test_a_sample_more_or_less_changes_the_key():
    data = samples()
    once_more = [*range(12), 5]  # a copy
    keys = [key(data=data.take(rows)) for rows in (range(12), range(11), once_more)]
    assert len(set(keys)) == 3


def other(value: object) -> list[object]:
    """Values near to one that a field has; not all need be allowed."""
    if isinstance(value, Enum):
        return [member for member in type(value) if member is not value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, value * 2]
    if isinstance(value, float):
        return [math.nextafter(value, 1), math.nextafter(value, 0), 0.5, value / 2, value + 1]
    if isinstance(value, Attack):
        return [FGSM(), PGD(), *(changed(value, f.name) for f in fields(value))]
    if isinstance(value, tuple):
        return [value[1:], value * 2]
    return [1, 0.5, "fog", None]


def changed(value: Any, name: str) -> Any:
    """A dataclass with another value of one field."""
    for attempt in other(getattr(value, name)):
        try:
            candidate = replace(value, **{name: attempt})
        except (InputError, TypeError, ValueError):
            continue
        if getattr(candidate, name) != getattr(value, name):
            return candidate
    raise AssertionError(f"no other value found for {name} of {value}")


CLASSES = sorted(n for n in registered(Kind.ATTACKS) if isinstance(find(Kind.ATTACKS, n), type))


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_of_every_attack_changes_what_is_described(name):
    attack = load_attack(name)
    assert isinstance(attack, Plan)
    plain = identity.digest(identity.described(attack))
    seen = {plain}
    for one in fields(attack):
        seen.add(identity.digest(identity.described(changed(attack, one.name))))
    assert len(seen) == 1 + len(fields(attack))


@pytest.mark.parametrize("one", [f.name for f in fields(PGD)])
def test_every_hyper_parameter_changes_the_key(one):
    attack = PGD(steps=3)
    assert key(attack=changed(attack, one)) != key(attack=attack)


@dataclass(frozen=True)
class Twin(PGD):
    """The same fields, another class."""


def test_the_attack_the_threat_and_the_rest_change_the_key():
    plain = PGD(steps=3)
    cases: list[Mapping[str, Any]] = [
        {},
        {"attack": FGSM(steps=3)},
        {"attack": Twin(steps=3)},
        {"attack": Restarts(plain, 2)},
        {"attack": Restarts(plain, 3)},
        {"attack": Cascade(plain)},
        {"attack": Cascade(FGSM(), plain)},
        {"attack": Cascade(plain, FGSM())},
        {"threat": replace(BALL, eps=math.nextafter(0.1, 1))},
        {"threat": replace(BALL, norm=Norm.L2)},
        {"threat": replace(BALL, queries=50)},
        {"threat": replace(BALL, queries=51)},
        {"seed": 1},
        {"precision": Precision.BF16},
        {"model": tiny(name="another")},
        {"model": tiny(mean=math.nextafter(0.5, 1) + 1e-7)},
        {"model": Classifier(tiny().model, name="tiny", bounds=(-1.0, 1.0))},
    ]
    keys = [key(**({"model": tiny()} | case)) for case in cases]
    assert len(set(keys)) == len(keys)


def test_every_value_of_a_unit_that_decides_changes_the_key():
    unit = entries()[0].units[0]
    cases: list[Mapping[str, Any]] = [
        {"seed": 1},
        {"precision": Precision.BF16},
        {"model_name": "another"},
        {"model_digest": "another"},
        {"ids": unit.ids[:-1]},
        {"ids": unit.ids[::-1]},
        {"trial": Trial("a", PGD(), BALL)},
    ]
    assert len({unit.key, *(replace(unit, **case).key for case in cases)}) == 1 + len(cases)
    seen = replace(unit, trial=Trial("a", Decided(), replace(BALL, access=Access.DECISIONS)))
    assert seen.key != replace(unit, trial=Trial("a", Decided(), BALL)).key


@dataclass(frozen=True)
class Decided(Attack):
    """An attack that needs no more than decisions."""

    needs = Access.DECISIONS
    steps: int = 1

    def supports(self, threat: Threat) -> bool:
        return True

    def start(self, oracle: Any, x: Tensor, y: Tensor, rng: Any) -> Walk:
        return Walk(x)

    def step(self, oracle: Any, x: Tensor, y: Tensor, rng: Any, state: Any) -> Walk:
        return Walk(x)


@dataclass(frozen=True)
class OfAKind(Decided):
    kind: str = "a"


@dataclass(frozen=True)
class OfThatKind(Decided):
    kind: str = "a"


def test_attacks_with_a_field_called_kind_differ_by_their_class():
    assert key(attack=OfAKind()) != key(attack=OfThatKind())


class Holding(nn.Module):
    """A model with something besides its weights."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        nn.init.zeros_(self.body.weight)
        nn.init.zeros_(self.body.bias)
        vars(self).update(held)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1))


class Estimator:
    """As those of scikit-learn: an object of Python's that holds numbers."""

    def __init__(self, value: float) -> None:
        self.coef_ = torch.tensor([value]).numpy()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param({"scale": 1.0}, {"scale": 2.0}, id="a number"),
        pytest.param({"_scale": 1.0}, {"_scale": 2.0}, id="a private number"),
        pytest.param({"_w": torch.zeros(2)}, {"_w": torch.ones(2)}, id="a private tensor"),
        pytest.param({"act": torch.relu}, {"act": torch.tanh}, id="a function"),
        pytest.param({"of": Estimator(1.0)}, {"of": Estimator(2.0)}, id="an object with numbers"),
    ],
)
def test_what_a_model_holds_besides_its_weights_changes_the_key(a, b):
    assert key(Holding(**a)) == key(Holding(**copy.deepcopy(a)))
    assert key(Holding(**a)) != key(Holding(**b))


def test_how_often_a_module_is_used_changes_the_key():
    first, act, last = nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)
    orders = [
        [nn.Flatten(), first, last],
        [nn.Flatten(), first, first, last],
        [nn.Flatten(), first, act, first, last],
        [nn.Flatten(), first, act, act, last],
    ]
    assert len({key(nn.Sequential(*order)) for order in orders}) == len(orders)


# What does not.


def test_what_cannot_change_an_outcome_does_not_change_the_key():
    unit = entries()[0].units[0]
    assert replace(unit, batch_size=7).key == unit.key
    assert replace(unit, batch_size=None, device="cuda:3").key == unit.key
    assert replace(unit, model="a spec", data="another").key == unit.key
    plain, equal = tiny(), copy.deepcopy(tiny())
    assert key(equal) == key(tiny()) == key(plain)
    equal.train().requires_grad_(False).to(memory_format=torch.channels_last)
    assert key(equal) == key(plain)
    data = samples()
    assert key(data=data.take(range(11, -1, -1))) == key(data=data)
    assert key(data=replace(data, name="other")) == key(data=data)


@given(st.permutations([f.name for f in fields(PGD)]))
@few
def test_the_order_in_which_values_are_given_does_not_change_the_key(order):
    attack = PGD(steps=3)
    values = {name: identity.described(getattr(attack, name)) for name in order}
    assert identity.digest(values) == identity.digest(dict(sorted(values.items())))
    made = {name: getattr(attack, name) for name in order}
    assert key(attack=PGD(**made)) == key(attack=attack)


def test_another_process_finds_the_same_keys():
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_store as t; print(t.key(t.tiny()))"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == key(tiny()), done.stderr


# Code and values of strangers.

STRANGER = """
from dataclasses import dataclass
from typing import Any
from robustbench_lite.attack import Attack, Walk

@dataclass(frozen=True)
class Stranger(Attack):
    steps: int = 1
    held: Any = None
    def supports(self, threat): return True
    def start(self, oracle, x, y, rng): return Walk(x)
    def step(self, oracle, x, y, rng, state): return Walk((x + 0.1).clamp(0, 1))
"""
HEIR = """
from dataclasses import dataclass
from stranger import Stranger

@dataclass(frozen=True)
class Heir(Stranger):
    pass
"""
Anew = Callable[..., ModuleType]


@pytest.fixture
def anew(tmp_path, monkeypatch) -> Anew:
    """`anew(name=text, ...)` writes modules and imports the last, as a new process would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**texts: str) -> ModuleType:
        for cached in (identity._package_of, identity._source_of):
            cached.cache_clear()
        for name, text in texts.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            monkeypatch.delitem(sys.modules, name.replace("__", "."), raising=False)
        importlib.invalidate_caches()
        for name in texts:
            module = importlib.import_module(name.replace("__", ".").removesuffix(".init"))
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return write


def test_a_changed_line_of_a_strangers_attack_changes_the_key(anew):
    first = key(attack=anew(stranger=STRANGER).Stranger())
    assert key(attack=anew(stranger=STRANGER).Stranger()) == first
    assert key(attack=anew(stranger=STRANGER.replace("0.1", "0.2")).Stranger()) != first


def test_a_changed_line_of_a_class_that_an_attack_inherits_from_changes_the_key(anew):
    first = key(attack=anew(stranger=STRANGER, heir=HEIR).Heir())
    assert key(attack=anew(stranger=STRANGER, heir=HEIR).Heir()) == first
    second = key(attack=anew(stranger=STRANGER.replace("0.1", "0.2"), heir=HEIR).Heir())
    assert second != first


MODEL = """
from torch import nn

class Body(nn.Linear):
    def forward(self, x): return super().forward(x.flatten(1)) * 2
"""
HEIR_OF_MODEL = """
from body import Body

class Heir(Body):
    pass
"""


@pytest.mark.parametrize("changed", ["body", "heir"])
def test_a_changed_line_of_a_model_or_of_what_it_inherits_from_changes_the_key(anew, changed):
    texts = {"body": MODEL, "heir": HEIR_OF_MODEL}

    def found() -> str:
        model = anew(**texts).Heir(4, 3)
        for values in model.parameters():
            nn.init.ones_(values)
        return key(model)

    first = found()
    assert found() == first
    texts[changed] += "    factor = 3\n"
    assert found() != first


@pytest.mark.parametrize("held", [object(), lambda x: x, {1, 2}, open], ids=type)
def test_an_attack_that_holds_what_cannot_be_described_is_refused(anew, held):
    attack = anew(stranger=STRANGER).Stranger(held=held)
    with pytest.raises(InputError, match="cannot be put on record; use numbers, texts, arrays"):
        key(attack=attack)


def swap(model: Path, weights: bytes) -> None:
    """Put other weights in a model's file, and their checksum on its card."""
    card = model.with_suffix(".toml")
    old, new = (hashlib.sha256(text).hexdigest() for text in (model.read_bytes(), weights))
    card.write_text(card.read_text().replace(old, new))
    model.write_bytes(weights)


def test_a_model_whose_file_is_not_the_one_of_the_key_is_not_computed(copied_model):
    data = load_data("digits").sample(2)
    first = load_model(str(copied_model))
    weights = digest_of_model(first)
    trial = Trial("fgsm", FGSM(), BALL)
    unit = Unit(str(copied_model), first.name, weights, "digits", data.ids, trial, 0)
    compute(unit)
    content = copied_model.read_bytes()
    swap(copied_model, content[:-1] + bytes([content[-1] ^ 1]))
    second = replace(unit, model_digest=digest_of_model(load_model(str(copied_model))))
    assert second.key != unit.key
    swap(copied_model, content)  # as a training that ends while a benchmark runs
    with pytest.raises(InputError, match="changed"):
        compute(second)


# Damage.


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "runs"
    assert bench(folder, tiny(), tiny(1, "other")).computed == 8
    return folder


@pytest.fixture(scope="module")
def damaged(whole, tmp_path_factory) -> Callable[[str, Callable[[bytes], bytes]], Path]:
    """`damaged(kind, change)`: the largest file of a copy of the folder, changed."""
    folder = tmp_path_factory.mktemp("damaged") / "runs"
    shutil.copytree(whole, folder)

    def change_one(kind: str, change: Callable[[bytes], bytes]) -> Path:
        sound = max((whole / kind).rglob("*.json*"), key=lambda p: p.stat().st_size)
        path = folder / sound.relative_to(whole)
        path.write_bytes(change(sound.read_bytes()))
        return path

    return change_one


def folder_of(path: Path) -> Path:
    return next(parent.parent for parent in path.parents if parent.name in ("units", "entries"))


def check_noticed_and_mended(whole: Path, path: Path) -> None:
    folder = folder_of(path)
    with pytest.raises(DamagedError, match=path.name):
        boards_in(Store(folder))
    with pytest.raises(DamagedError, match=path.name):
        merge([Store(folder)], Store(folder.with_name("joined")))
    assert not folder.with_name("joined").exists()
    tally = bench(folder, tiny(), tiny(1, "other"))
    units = 1 if path.suffix == ".jsonl" else 0
    assert (tally.computed, tally.found, tally.failed) == (units, 8 - units, {})
    assert table(folder) == table(whole)


BOTH = pytest.mark.parametrize("kind", ["units", "entries"])


@BOTH
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@few
def test_a_flipped_bit_is_noticed_and_mended(whole, damaged, kind, share, bit):
    def flip(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]

    check_noticed_and_mended(whole, damaged(kind, flip))


@BOTH
@given(share=st.floats(0, 1, exclude_max=True))
@few
def test_a_file_cut_short_is_noticed_and_mended(whole, damaged, kind, share):
    check_noticed_and_mended(whole, damaged(kind, lambda c: c[: int(share * len(c))]))


@BOTH
def test_every_length_and_every_flipped_byte_is_noticed(damaged, kind):
    path = damaged(kind, lambda content: content)
    content, store = path.read_bytes(), Store(folder_of(path))
    changes = [content[:length] for length in range(len(content))]
    changes += [content + end for end in (b"\n", b" ", b"\0", content)]
    for place in range(0, len(content), 3):
        flipped = bytes([content[place] ^ (1 << place % 8)])
        changes.append(content[:place] + flipped + content[place + 1 :])
    for change in changes:
        path.write_bytes(change)
        with pytest.raises(DamagedError, match=path.name):
            store.read(kind, path.stem)
    assert not store.has(kind, path.stem)
    path.write_bytes(content)


@BOTH
def test_a_whole_file_under_another_files_name_is_noticed_and_mended(whole, damaged, kind):
    path = damaged(kind, lambda content: content)
    content = path.read_bytes()
    another = next(p for p in (whole / kind).rglob("*.json*") if p.name != path.name)
    try:
        shutil.copy(another, path)
        check_noticed_and_mended(whole, path)
    finally:
        path.write_bytes(content)


def test_the_command_line_names_the_damaged_file(damaged, forked_rbl, tmp_path):
    path = damaged("units", lambda content: content[:-40])
    done = forked_rbl("leaderboard", folder_of(path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"rbl: {path} is damaged: it is not what was written; remove it and start rbl bench again\n"
    )


# Folders joined.


def again(path: Path, change: Callable[[list[bytes]], None]) -> None:
    """Store what a file says once more, changed."""
    lines = path.read_bytes().splitlines(keepends=True)[:-1]
    change(lines)
    kind = "units" if path.suffix == ".jsonl" else "entries"
    Store(folder_of(path)).write(kind, path.stem, b"".join(lines))


def later(lines: list[bytes]) -> None:
    """The same result of another machine: only the line of the clock differs."""
    clock = json.loads(lines[-1])
    lines[-1] = json.dumps(clock | {"versions": {"torch": "0"}}).encode() + b"\n"


def otherwise(lines: list[bytes]) -> None:
    """Another result: one record differs."""
    lines[2] = lines[2].replace(b'"queries": ', b'"queries": 1')


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 11])
def test_shards_joined_in_any_order_make_the_table_of_one_run(whole, tmp_path, parts):
    chance = random.Random(parts)
    numbers = list(range(1, parts + 1))
    chance.shuffle(numbers)
    shards = [Store(tmp_path / str(number)) for number in numbers]
    computed = [
        bench(store.folder, tiny(), tiny(1, "other"), shard=(number, parts)).computed
        for number, store in zip(numbers, shards, strict=True)
    ]
    assert sum(computed) == 8
    assert max(computed) - min(computed) <= 1
    joined = []
    for place in range(3):
        chance.shuffle(shards)
        into = Store(tmp_path / f"joined-{place}")
        assert merge(shards, into) == {"units": 8, "entries": 2}
        joined.append(files(into.folder))
        assert table(into.folder) == table(whole)
    assert joined[0] == joined[1] == joined[2]


def test_joining_again_or_in_another_order_gives_the_same_bytes(whole, tmp_path):
    copies = [tmp_path / name for name in "abc"]
    for number, folder in enumerate(copies):
        shutil.copytree(whole, folder)
        for path in sorted(folder.rglob("*.json*"))[number::2]:
            again(path, later)
    assert len({str(files(folder)) for folder in copies}) == 3
    a, b, c = map(Store, copies)
    joined = []
    for number, (sources, target) in enumerate(
        [([a, b, c], "x"), ([c, a, b], "x"), ([b, c, a, a], "x"), ([c, b], "a"), ([a], "cb")]
    ):
        into = Store(tmp_path / f"{number}-{target}")
        for name in target.removeprefix("x"):
            merge([Store(tmp_path / name)], into)
        merge(sources, into)
        joined.append(files(into.folder))
        merge(sources, into)
        merge([into], into)
        assert files(into.folder) == joined[-1]
    assert all(found == joined[0] for found in joined)
    assert len(joined[0]) == 10


def test_two_results_of_one_key_are_an_error_and_nothing_is_written(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "other")
    path = next((tmp_path / "other").rglob("*.jsonl"))
    again(path, otherwise)
    mine = whole / path.relative_to(tmp_path / "other")
    for order in ([whole, tmp_path / "other"], [tmp_path / "other", whole]):
        with pytest.raises(InputError, match="should be the same and are not") as error:
            merge([Store(folder) for folder in order], Store(tmp_path / "joined"))
        assert str(path) in str(error.value)
        assert str(mine) in str(error.value)
        assert not (tmp_path / "joined").exists()
    before = files(tmp_path / "other")
    with pytest.raises(InputError, match="should be the same and are not"):
        merge([Store(whole)], Store(tmp_path / "other"))
    assert files(tmp_path / "other") == before


def test_a_model_is_on_a_board_once_though_its_samples_were_cut_in_two_ways(tmp_path):
    for size in (6, 4, 12):
        suite = replace(SUITE, slice=size)
        run(entries(suite=suite), Store(tmp_path), InProcess(), shard=(1, 1 if size < 12 else 2))
    (board,) = boards_in(Store(tmp_path))
    assert [(row.model, row.missing) for row in board.rows] == [("tiny", 0)]


# What the dead leave.


def hold(folder: Path, key: str, ready: Any, done: Any) -> None:
    assert Store(folder).claim(key)
    ready.set()
    done.wait(60)


def test_what_the_dead_left_half_written_is_removed_and_what_others_write_is_not(whole, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(whole, folder)
    keys = list(Store(folder).keys("units"))
    entry = next(Store(folder).keys("entries"))
    mine, dead = (Store(folder).path("units", k) for k in keys[:2])
    left = [dead.with_name(f"{dead.name}.9.tmp")]
    left.append(Store(folder).path("entries", entry).with_name(f"{entry}.json.9.tmp"))
    kept = mine.with_name(f"{mine.name}.9.tmp")
    for path in (*left, kept):
        path.write_bytes(b"half")
    fork = multiprocessing.get_context("fork")
    ready, done = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(folder, keys[0], ready, done))
    other.start()
    assert ready.wait(60)
    assert not Store(folder).claim(keys[0])
    Store(folder).clean()
    assert kept.exists()
    other.kill()  # and what it held is free
    other.join()
    Store(folder).clean()
    assert not kept.exists()
    assert [path for path in left if path.exists()] == []


def test_what_an_outcome_cannot_depend_on_is_not_imported_by_what_it_depends_on() -> None:
    code = (
        "import sys, robustbench_lite.judge, rbl_attacks, rbl_attacks.verdict, rbl_defenses; "
        "print('\\n'.join(m for m in sys.modules if m.startswith('robustbench_lite.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = {name.split(".")[1] for name in done.stdout.split()}
    assert {"judge", "engine", "oracle"} <= used
    assert not used & {name.removesuffix(".py") for name in OF_NO_CONSEQUENCE}
