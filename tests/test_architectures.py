"""The zoo's architectures: what they are made of, on any image, and their prepared copies."""

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Classifier, InputError
from robustbench_lite.card import Recipe
from robustbench_lite.models import build
from robustbench_lite.prepared import prepare
from robustbench_lite.registry import Kind, registered
from robustbench_lite.zoo.senet import AttentiveBlock, Excitation
from robustbench_lite.zoo.vit import VisionTransformer
from robustbench_lite.zoo.wideresnet import WideBlock

NAMES = [name for name in registered(Kind.ARCHITECTURES) if not name.startswith("hog-")]


def made(arch: str, classes: int = 5, channels: int = 3, size: int = 8, **values: int) -> nn.Module:
    names = {"names": ",".join(f"c{k}" for k in range(classes))} if arch == "clip" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recipe = Recipe(arch=arch, arch_set=values | names, data="-")
        net = build(recipe, classes, channels, size)
    return net.eval()


def images(n: int, channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def worn(net: nn.Module) -> nn.Module:
    """With running statistics as after training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(2))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(3))
    return net


@pytest.mark.parametrize("arch", NAMES)
@pytest.mark.parametrize(("classes", "channels", "size"), [(2, 1, 8), (10, 1, 28), (43, 3, 32)])
def test_any_number_of_classes_and_channels_and_usual_sizes(arch, classes, channels, size):
    net, x = made(arch, classes, channels, size), images(3, channels, size)
    logits = net(x)
    assert logits.shape == (3, classes)
    assert torch.allclose(net(x[1:2]), logits[1:2], atol=1e-5)  # no look at batch-mates
    assert float(logits.detach().std(0).min()) > 0  # every class looks at the image


@pytest.mark.parametrize("arch", NAMES)
def test_every_weight_takes_part(arch):
    net = made(arch).train()
    net(images(16)).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert float(p.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("arch", NAMES)
def test_the_prepared_copy_is_another_and_says_the_same(arch):
    classifier, x = Classifier(worn(made(arch))), images(20)
    fast = prepare(classifier, x[:8])
    assert fast is not classifier
    assert torch.allclose(fast(x), classifier(x), atol=1e-4)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_sizes_are_those_of_the_papers():
    # LeNet-5 on 32 x 32 has 61,706 weights when the first convolution loses the border and the
    # second sees all maps; keeping the border makes the map before the linear layers 8 x 8.
    assert parameters(made("lenet", 10, 1, 32)) == 61_706 + 120 * 16 * (8 * 8 - 5 * 5)
    assert round(parameters(made("wideresnet", 10, 3, 32, depth=28, width=10)) / 1e6, 1) == 36.5
    assert round(parameters(made("wideresnet", 10, 3, 32, depth=40, width=4)) / 1e6, 1) == 8.9
    assert parameters(made("mlp", 10, 1, 28)) == 784 * 128 + 128 * 64 + 64 * 10 + 128 + 64 + 10
    assert 1.2e6 < parameters(made("allconv", 10, 3, 32, width=96)) < 1.4e6
    assert round(parameters(made("resnet", 10, 3, 32, depth=3)) / 1e6, 2) == 0.27


@pytest.mark.parametrize(
    ("arch", "values", "part"),
    [
        ("wideresnet", {"depth": 12}, "10, 16, 22"),
        ("vit", {"patch": 3}, "must divide the images' 8"),
        ("vit", {"width": 90}, "multiple of heads, 4"),
        ("senet", {"reductoin": 4}, "reductoin"),
    ],
)
def test_settings_that_cannot_be_used(arch, values, part):
    with pytest.raises(InputError, match=part):
        made(arch, **values)


def test_excitation_weighs_channels_by_their_means():
    layer, x = Excitation(6, 2), images(4, 6)
    mean = x.mean((2, 3))
    inner = (mean @ layer.squeeze.weight.flatten(1).T + layer.squeeze.bias).relu()
    weight = (inner @ layer.excite.weight.flatten(1).T + layer.excite.bias).sigmoid()
    assert torch.allclose(layer.weights(x).flatten(1), weight, atol=1e-6)
    assert torch.allclose(layer(x), x * weight[:, :, None, None], atol=1e-6)
    blocks = [m for m in made("senet").modules() if isinstance(m, AttentiveBlock)]
    assert len(blocks) == 6


def test_wide_blocks_norm_first_and_add_without_a_last_relu():
    block = worn(WideBlock(4, 4, 1).eval())
    x = images(3, 4) - 0.5
    with torch.no_grad():
        block.conv2.weight.zero_()
        assert torch.equal(block(x), x)
    assert isinstance(block, WideBlock)
    assert isinstance(worn(WideBlock(4, 6, 2)), WideBlock)


def test_attention_maps_are_those_that_the_transformer_uses():
    net, x = made("vit"), images(4)
    assert isinstance(net, VisionTransformer)
    maps = net.attention_maps(x)
    assert len(maps) == 6
    assert all(m.shape == (4, 4, 5, 5) for m in maps)
    assert all(torch.allclose(m.sum(3), torch.ones(4, 4, 5), atol=1e-5) for m in maps)
    layer = net.layers[0]
    tokens = layer.norm1(net._tokens(x))
    value = layer.attention.mix(tokens).chunk(3, 2)[2].unflatten(2, (4, -1)).transpose(1, 2)
    by_hand = layer.attention.out((maps[0] @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(layer.attention(tokens), by_hand, atol=1e-5)


def test_the_transformer_knows_where_a_patch_is():
    net, x = made("vit"), images(2)
    moved = torch.cat([x[:, :, 4:], x[:, :, :4]], 2)
    assert not torch.allclose(net(x), net(moved), atol=1e-4)
    with torch.no_grad():
        net.positions.zero_()
    assert torch.allclose(net(x), net(moved), atol=1e-5)
