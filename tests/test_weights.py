import json
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.torch_version import TorchVersion

from robustbench_lite.errors import InputError
from robustbench_lite.pickles import imports_of
from robustbench_lite.weights import load_into, read_weights


def net(classes: int = 3, width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    body = (nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(4 * width, classes))


def untouched(classes: int = 3) -> nn.Sequential:
    module = net(classes)
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def same(module: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_state_dict_of_torch_save(tmp_path, suffix, zipped):
    path = tmp_path / f"net{suffix}"
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    module = untouched()
    load_into(module, path)
    assert same(module, net().state_dict())


def test_a_safetensors_file(tmp_path):
    save_file(net().state_dict(), tmp_path / "net.safetensors")
    module = untouched()
    load_into(module, tmp_path / "net.safetensors")
    assert same(module, net().state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "ema", "other"])
def test_the_weights_among_what_a_training_keeps(tmp_path, key):
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    kept = {"epoch": 3, "optimizer": optimizer, key: net().state_dict(), "args": {}}
    torch.save(kept, tmp_path / "checkpoint.pth")
    module = untouched()
    load_into(module, tmp_path / "checkpoint.pth")
    assert same(module, net().state_dict())


def test_of_several_weights_none_is_guessed(tmp_path):
    other = {name: tensor + 1 for name, tensor in net().state_dict().items()}
    torch.save({"model": net().state_dict(), "model_ema": other}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"2 entries \(model, model_ema\).+--key model"):
        read_weights(tmp_path / "c.pth")
    assert torch.equal(read_weights(tmp_path / "c.pth", "model_ema")["3.bias"], other["3.bias"])
    with pytest.raises(InputError, match=r"no entry 'ema'.+model, model_ema"):
        read_weights(tmp_path / "c.pth", "ema")


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_a_prefix_of_all_names_is_left_out(tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in net().state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    module = untouched()
    load_into(module, tmp_path / "net.safetensors")
    assert same(module, net().state_dict())


def test_a_prefix_that_the_module_has_too_stays(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in net().state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    module = nn.Module()
    module.module = untouched()
    load_into(module, tmp_path / "net.safetensors")
    assert same(module, state)


def test_a_prefix_of_some_names_stays(tmp_path):
    state = dict(net().state_dict())
    state["module.3.bias"] = state.pop("3.bias")
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"1 missing \(3\.bias\), 1 unexpected \(module\.3\.bias"):
        load_into(net(), tmp_path / "net.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_the_modules(tmp_path, dtype):
    state = {name: t.to(dtype) for name, t in net().state_dict().items() if t.is_floating_point()}
    save_file(state, tmp_path / "net.safetensors")
    module = untouched()
    load_into(module, tmp_path / "net.safetensors")
    assert {t.dtype for t in module.parameters()} == {torch.float32}
    assert torch.equal(module[3].weight, state["3.weight"].float())


def test_weights_too_large_for_the_modules_precision(tmp_path):
    state = dict(net().state_dict())
    state["3.bias"] = torch.full((3,), 1e300, dtype=torch.float64)
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"3\.bias is too large for torch\.float32"):
        load_into(net(), tmp_path / "net.safetensors")


def test_integers_are_no_weights(tmp_path):
    state = dict(net().state_dict())
    state["3.bias"] = torch.ones(3, dtype=torch.int64)
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"3\.bias is torch\.int64, not torch\.float32"):
        load_into(net(), tmp_path / "net.safetensors")


def test_old_files_know_no_counters_of_batches(tmp_path):
    state = {n: t for n, t in net().state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "net.safetensors")
    module = untouched()
    load_into(module, tmp_path / "net.safetensors")
    assert torch.equal(module[0].weight, net()[0].weight)


def test_another_number_of_classes(tmp_path):
    save_file(net(classes=7).state_dict(), tmp_path / "net.safetensors")
    before = untouched()
    with pytest.raises(
        InputError, match=r"is for 7 classes, and the model is built for 3 \(3\.\w+, 3\.\w+\);.+=7$"
    ):
        load_into(before, tmp_path / "net.safetensors")
    assert same(before, untouched().state_dict())


def test_another_architecture_is_told_by_a_few_names(tmp_path):
    state = {f"body.{i}.weight": torch.ones(2) for i in range(40)}
    state |= {"0.weight": torch.ones(9, 9)}
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(InputError) as caught:
        load_into(net(), tmp_path / "net.safetensors")
    said = str(caught.value)
    assert "of 9 tensors 7 missing (0.bias, 1.bias, 1.running_mean, 1.running_var, 1.weight" in said
    assert "1.weight and 2 more), 40 unexpected (" in said
    assert "and 35 more), 1 of another shape (0.weight: (9, 9) instead of (4, 1, 3, 3))" in said
    assert said.count("body.") == 5


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("3.weight", (3, 99), r"3\.weight: \(3, 99\) instead of \(3, 16\)"),
        ("0.bias", (9,), r"0\.bias: \(9,\) instead of \(4,\)"),
    ],
)
def test_another_shape_is_no_matter_of_classes(tmp_path, name, shape, told):
    save_file({**net().state_dict(), name: torch.ones(shape)}, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=rf"of 9 tensors 1 of another shape \({told}\)"):
        load_into(net(), tmp_path / "net.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_a_weight_that_is_no_number(tmp_path, value, dtype):
    weight = torch.ones(4, 5)
    weight[2, 3] = value
    save_file({"good": torch.ones(2), "bad": weight.to(dtype)}, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match="bad is NaN or infinite"):
        read_weights(tmp_path / "net.safetensors")


def with_header(header: object, data: bytes = b"\0" * 16) -> bytes:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], first: int, last: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [first, last]}


ONE = json.dumps(entry([4], 0, 16))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not a whole"),
        (b"\x08\0\0", "not a whole"),
        (struct.pack("<Q", 2**60) + b"{}", f"would have {2**60} bytes"),
        (struct.pack("<Q", 1000) + b"{}", "not a whole"),
        (with_header({"a": entry([4], 0, 16)}, b"\0" * 15), "not a whole"),
        (with_header({"a": entry([4], 0, 16)}, b"\0" * 17), "not a whole"),
        (with_header({"a": entry([2**62, 4], 0, 16)}), "not a whole"),
        (with_header({"a": entry([4], 2**63, 2**63 + 16)}), "not a whole"),
        (with_header({"a": entry([4], -16, 0)}), "not a whole"),
        (with_header({"a": entry([2], 0, 8), "b": entry([4], 0, 16)}), "not a whole"),
        (with_header(f'{{"a": {ONE}, "a": {ONE}}}'), "'a' comes twice"),
        (with_header({"a": {**entry([4], 0, 16), "dtype": "F33"}}), "not a whole"),
        (with_header("[" * 100_000), "not a whole"),
        (with_header({}, b""), "but nothing"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>not found</html>", "is a web page"),
        (pickle.dumps({"a": 1}), "safetensors"),
    ],
)
def test_a_file_that_is_no_safetensors_file(tmp_path, content, part):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=part) as caught:
        read_weights(path)
    assert "net.safetensors" in str(caught.value)


def test_only_the_last_of_these_headers_is_sound(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(with_header({"a": entry([4], 0, 16)}))
    assert torch.equal(read_weights(path)["a"], torch.zeros(4))


@pytest.mark.parametrize(
    ("held", "part"),
    [
        ({}, "no dict of tensors but nothing"),
        (3, "no dict of tensors but an object of int"),
        (nn.ReLU().state_dict(), "no dict of tensors but nothing"),
        ({"epoch": 3, "lr": [0.1]}, r"no dict of tensors \(epoch, lr\)"),
        ({"a": torch.ones(2), "b": 3}, r"no dict of tensors \(a, b\)"),
        ({1: torch.ones(2)}, r"no dict of tensors \(1\)"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is no plain tensor"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a is no plain tensor"),
        ({"a": torch.ones(2, device="meta")}, "a is no plain tensor"),
        ({"a": torch.zeros(1).expand(2**20, 2**20)}, "claims 4398046511104 bytes"),
        ({"a\x1b[31m\n": torch.full((2,), torch.nan)}, r"a\\x1b\[31m\\n is NaN"),
    ],
)
def test_what_torch_save_wrote_are_no_weights(tmp_path, held, part):
    torch.save(held, tmp_path / "net.pt")
    with pytest.raises(InputError, match=part):
        read_weights(tmp_path / "net.pt")


def test_a_whole_module_is_refused_with_the_remedy(tmp_path):
    torch.save(net(), tmp_path / "my net.pt")
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path / "my net.pt")
    assert ": it would import __builtin__.set, torch.nn.modules.batchnorm.BatchNorm2d, " in str(
        caught.value
    )
    assert f"rbl convert '{tmp_path / 'my net.pt'}' --unsafe-pickle" in str(caught.value)


def test_a_torchscript_program_is_told_apart(tmp_path):
    torch.jit.save(torch.jit.trace(net().eval(), torch.zeros(1, 1, 4, 4)), tmp_path / "net.pt")
    with pytest.raises(InputError, match="is a TorchScript program; give it as --model torchscr"):
        read_weights(tmp_path / "net.pt")


def test_a_compressed_file_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "net.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(InputError, match="is compressed"):
        read_weights(tmp_path / "net.pt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_no_part_of_a_file_is_taken_for_the_whole(tmp_path, zipped):
    torch.save(net().state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "w.pt").read_bytes()
    for length in range(0, len(whole) - 1, 199):
        (tmp_path / "part.pt").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"part\.pt"):
            read_weights(tmp_path / "part.pt")


def test_an_old_torch_reads_no_pickle(tmp_path, monkeypatch):
    torch.save(net().state_dict(), tmp_path / "net.pt")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    with pytest.raises(InputError, match=r"torch 2\.9\.1.+install torch 2\.10 or newer"):
        read_weights(tmp_path / "net.pt")


@pytest.mark.parametrize("protocol", range(6))
def test_the_imports_of_a_pickle(tmp_path, protocol):
    held = [OrderedDict, struct.Struct, zipfile.ZipFile, zipfile.ZipInfo]
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(held, protocol))
    names = imports_of(tmp_path / "net.pkl")
    assert names == ["_struct.Struct", "zipfile.ZipFile", "zipfile.ZipInfo"]
