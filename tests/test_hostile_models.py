import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WEIGHTS, change_card

NET = "import torch\n\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), HEAD)\n"
ATTACK = ("--attack", "fgsm", "--n", "4", "--json", "out.json")


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.command = f"touch '{sentinel}'"

    def __reduce__(self):
        return os.system, (self.command,)


def weights() -> dict[str, torch.Tensor]:
    return {"1.weight": torch.ones(10, 64), "1.bias": torch.ones(10)}


def plain(path: Path, evil: object) -> None:
    path.write_bytes(pickle.dumps(evil))


def oldest(path: Path, evil: object) -> None:
    path.write_bytes(pickle.dumps(evil, 0))


def zipped(path: Path, evil: object) -> None:
    torch.save(evil, path)


def legacy(path: Path, evil: object) -> None:
    torch.save(evil, path, _use_new_zipfile_serialization=False)


def nested(path: Path, evil: object) -> None:
    torch.save({"state_dict": weights(), "optimizer": {"state": [1, (2, evil)]}}, path)


def among_weights(path: Path, evil: object) -> None:
    torch.save({**weights(), "2.weight": evil}, path)


def tarred(path: Path, evil: object) -> None:
    content = pickle.dumps(evil)
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def arrays(path: Path, evil: object) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.array([evil]), y=np.array([0]))


def read_arrays(path: Path) -> None:
    np.load(path, allow_pickle=True)["x"]


def read_pickle(path: Path) -> None:
    with path.open("rb") as file:
        pickle.load(file)


def read_torch(path: Path) -> None:
    torch.load(path, weights_only=False)


PICKLES = [(plain, read_pickle), (oldest, read_pickle), (arrays, read_arrays)]
PICKLES += [(write, read_torch) for write in (zipped, legacy, nested, among_weights, tarred)]


@pytest.mark.parametrize(("write", "read"), PICKLES)
def test_these_files_bite_whoever_trusts_them(tmp_path, write, read):
    write(tmp_path / "evil.pt", Payload(tmp_path / "sentinel"))
    assert not (tmp_path / "sentinel").exists()
    with suppress(Exception):  # it bites first, and may be no whole file afterwards
        read(tmp_path / "evil.pt")
    assert (tmp_path / "sentinel").exists()


@pytest.fixture
def kept_out(forked_refused, copied_model, tmp_path_factory, tmp_path):
    """Writes a hostile file, runs rbl on it, and returns the refusal."""
    (tmp_path / "net.py").write_text(NET.replace("HEAD", "torch.nn.Linear(64, 10)"))
    sentinel = tmp_path_factory.mktemp("outside") / "sentinel"

    def check(write: Callable[[Path, object], None], name: str, *arguments: str) -> str:
        write(tmp_path / name, Payload(sentinel))
        said = forked_refused(*arguments)
        assert not sentinel.exists()
        assert len(said) < 1000
        assert said.isprintable() or said[:-1].isprintable()
        return said

    return check


@pytest.mark.parametrize(
    ("write", "name", "imports"),
    [
        (zipped, "evil.pt", "it would import posix.system;"),
        (legacy, "evil.pth", "it would import posix.system;"),
        (nested, "evil.bin", "it would import posix.system;"),
        (among_weights, "evil.ckpt", "it would import posix.system;"),
        (plain, "evil.pkl", "it would import posix.system;"),
        (oldest, "evil.pickle", "it would import posix.system;"),
        (tarred, "evil.pth.tar", "it holds more than tensors, or is damaged;"),
    ],
)
def test_a_pickle_that_runs_a_command_as_weights(kept_out, write, name, imports):
    said = kept_out(write, name, "attack", "-m", "net.py:make", "--weights", name, *ATTACK)
    assert f"{name} is a pickle that can run code when it is opened: {imports}" in said
    assert f"rbl convert {name} --unsafe-pickle" in said


@pytest.mark.parametrize(
    ("write", "name", "arguments"),
    [
        (nested, "evil.pt", ("convert", "evil.pt", "-o", "new.safetensors")),
        (plain, "evil.pt", ("convert", "evil.pt")),
        (zipped, "evil.pt", ("attack", "-m", "evil.pt", *ATTACK)),
        (zipped, "model.safetensors", ("attack", "-m", "model.safetensors", *ATTACK)),
        (plain, "model.safetensors", ("attack", "-m", "model.safetensors", *ATTACK)),
        (
            plain,
            "w.safetensors",
            ("attack", "-m", "net.py:make", "--weights", "w.safetensors", *ATTACK),
        ),
        (plain, "model.toml", ("attack", "-m", "model.safetensors", *ATTACK)),
        (plain, "evil.onnx", ("attack", "-m", "onnx:evil.onnx", *ATTACK)),
        (zipped, "evil.skops", ("attack", "-m", "sklearn:evil.skops", *ATTACK)),
        (plain, "evil.skops", ("attack", "-m", "sklearn:evil.skops", *ATTACK)),
        (plain, "evil.keras", ("attack", "-m", "keras:evil.keras", *ATTACK)),
        (zipped, "evil.pt", ("attack", "-m", "torchscript:evil.pt", *ATTACK)),
        (plain, "evil.pt2", ("attack", "-m", "exported:evil.pt2", *ATTACK)),
        (plain, "evil.npz", ("attack", "-m", "digits-cnn", "--data", "npz:evil.npz", *ATTACK)),
        (arrays, "evil.npz", ("attack", "-m", "digits-cnn", "--data", "npz:evil.npz", *ATTACK)),
    ],
)
def test_a_pickle_in_the_place_of_something_else(kept_out, write, name, arguments):
    assert Path(name).stem in kept_out(write, name, *arguments)


def no_pickle(write: Callable[[Path], None]) -> Callable[[Path, object], None]:
    return lambda path, evil: write(path)


def out_of_its_folder(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../evil", "/evil", "archive/data.pkl"):
            archive.writestr(name, b"1")


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(1))
        archive.writestr("archive/data/0", bytes(2**27))


def claims_a_huge_storage(path: Path) -> None:
    torch.save({"1.bias": torch.ones(10)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x0a") == 2  # the storage's length, and the tensor's
    path.write_bytes(content.replace(b"K\x0a", b"\x8a\x08" + struct.pack("<q", 2**60)))


def claims_a_huge_tensor(path: Path) -> None:
    torch.save({"1.bias": torch.ones(1).expand(2**40)}, path)


def not_a_number(path: Path) -> None:
    torch.save({**weights(), "1.bias": torch.tensor([0.0] * 9 + [torch.nan])}, path)


def terminal_codes(path: Path) -> None:
    path.write_bytes(b"\x80\x02cos\x1b]0;evil\x07\x1b[2J\nsystem\n.")


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (out_of_its_folder, "cannot be read"),
        (bomb, "is compressed, which torch.save never does"),
        (claims_a_huge_storage, "cannot be read"),
        (claims_a_huge_tensor, "claims 4398046511104 bytes"),
        (terminal_codes, r"os\x1b]0;evil\x07\x1b[2J.system"),
        (not_a_number, "1.bias is NaN or infinite somewhere"),
        (Path.touch, "is empty"),
        (Path.mkdir, "does not exist"),
        (os.mkfifo, "does not exist"),
        (lambda path: path.symlink_to(path.name), "does not exist"),
        (lambda path: path.symlink_to("/dev/zero"), "does not exist"),
    ],
)
def test_weights_that_are_none(kept_out, write, part):
    arguments = ("attack", "-m", "net.py:make", "--weights", "evil.pt", *ATTACK)
    assert part in kept_out(no_pickle(write), "evil.pt", *arguments)


def resealed(model: Path, content: bytes) -> None:
    """Another content, and a card that vouches for it."""
    old = hashlib.sha256(model.read_bytes()).hexdigest()
    model.write_bytes(content)
    change_card(old, hashlib.sha256(content).hexdigest())(model)


def truncated(model: Path) -> None:
    resealed(model, model.read_bytes()[:-100])


def huge_header(model: Path) -> None:
    resealed(model, struct.pack("<Q", 2**60) + model.read_bytes()[8:])


def exchanged(model: Path) -> None:
    model.write_bytes((WEIGHTS / "digits-cnn-at.safetensors").read_bytes())


def huge_card(model: Path) -> None:
    model.with_suffix(".toml").write_text("# " + "x" * 10**8)


def looped_card(model: Path) -> None:
    model.with_suffix(".toml").unlink()
    model.with_suffix(".toml").symlink_to("model.toml")


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (truncated, "is not a whole safetensors file"),
        (huge_header, "model.safetensors"),
        (exchanged, "does not match the sha256 in its card"),
        (lambda model: resealed(model, b""), "is not a whole safetensors file"),
        (lambda model: model.with_suffix(".toml").write_bytes(b""), "model.toml"),
        (huge_card, "model.toml"),
        (looped_card, "model.toml"),
    ],
)
def test_a_model_of_our_own_that_was_tampered_with(kept_out, copied_model, damage, part):
    tamper = no_pickle(lambda path: damage(copied_model))
    assert part in kept_out(tamper, "unused", "attack", "-m", "model.safetensors", *ATTACK)


def test_code_that_is_not_there(kept_out):
    arguments = ("attack", "-m", "gone.py:make", *ATTACK)
    assert "gone.py" in kept_out(no_pickle(Path.touch), "unused", *arguments)


def test_the_net_of_these_tests_takes_sound_weights(kept_out, forked_rbl, tmp_path):
    torch.save(weights(), tmp_path / "good.pt")
    arguments = ("attack", "-m", "net.py:make", "--weights", "good.pt", "--data", "digits")
    done = forked_rbl(*arguments, *ATTACK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
