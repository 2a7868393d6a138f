"""Threats without a norm: what they show, how far it is and what they allow, by hand."""

import math
from dataclasses import replace

import pytest
import torch
from rbl_attacks.pasting import pasted, window
from rbl_attacks.spatial import Search, SpatialAttack
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Classifier,
    Dataset,
    InputError,
    Targeted,
    evaluate,
)
from robustbench_lite.structured import Patch, Spatial
from robustbench_lite.testing.models import DecisionsOnly, Recorder, generator


def images(*shape: int, seed: int = 0) -> Tensor:
    return 0.05 + 0.9 * torch.rand(*shape, generator=generator(seed))


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """The images shifted by whole pixels, black where nothing is."""
    rows, columns = x.shape[2:]
    out = torch.zeros_like(x)
    for row in range(rows):
        for column in range(columns):
            if 0 <= row - down < rows and 0 <= column - right < columns:
                out[:, :, row, column] = x[:, :, row - down, column - right]
    return out


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 8), (2, 9, 4), (1, 1, 7)], ids=str)
@pytest.mark.parametrize(("down", "right"), [(0, 1), (1, 0), (-1, 2), (2, -3)])
def test_a_shift_by_whole_pixels_moves_the_image(
    shape: tuple[int, int, int], down: int, right: int
) -> None:
    x = images(2, *shape)
    place = torch.tensor([[0.0, down / shape[1], right / shape[2]]] * 2)
    shown = Spatial(0, 1).render(x, place)
    assert torch.allclose(shown, moved(x, down, right), atol=1e-5)


@pytest.mark.parametrize("side", [4, 7])
@pytest.mark.parametrize(("degrees", "quarters"), [(90, -1), (-90, 1), (180, 2), (-180, 2)])
def test_a_quarter_turn_is_torchs(side: int, degrees: float, quarters: int) -> None:
    x = images(3, 2, side, side)
    shown = Spatial(180, 0).render(x, torch.tensor([[degrees, 0.0, 0.0]] * 3))
    assert torch.allclose(shown, torch.rot90(x, quarters, (2, 3)), atol=1e-5)


def test_the_image_turns_before_it_shifts() -> None:
    x = images(1, 1, 6, 6)
    shown = Spatial(180, 1).render(x, torch.tensor([[90.0, 1 / 6, -2 / 6]]))
    assert torch.allclose(shown, moved(torch.rot90(x, -1, (2, 3)), 1, -2), atol=1e-5)


def test_half_a_turn_of_an_image_that_is_not_square_keeps_its_shape() -> None:
    x = images(1, 1, 3, 8)
    shown = Spatial(180, 0).render(x, torch.tensor([[180.0, 0.0, 0.0]]))
    assert torch.allclose(shown, x.flip(2, 3), atol=1e-5)
    quarter = Spatial(180, 0).render(torch.ones(1, 1, 4, 12), torch.tensor([[90.0, 0.0, 0.0]]))
    lit = torch.zeros(1, 1, 4, 12)
    lit[..., 4:8] = 1  # a bar of 12 by 4 stands upright: 4 of its columns stay in the frame
    assert torch.allclose(quarter, lit, atol=1e-5)


def test_small_turns_keep_distances_in_pixels_whatever_the_shape() -> None:
    """The middle of mass of a dot is where a turn by hand puts it."""
    for rows, columns in ((31, 31), (21, 41), (41, 21)):
        x = torch.zeros(1, 1, rows, columns)
        middle = torch.tensor([(rows - 1) / 2, (columns - 1) / 2])
        away = torch.tensor([-6.0, 5.0])
        x[0, 0, int(middle[0] + away[0]), int(middle[1] + away[1])] = 1
        shown = Spatial().render(x, torch.tensor([[30.0, 0.0, 0.0]]))[0, 0]
        index = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        mass = (index * shown.reshape(-1, 1)).sum(0) / shown.sum() - middle
        cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
        clockwise = [away[0] * cos + away[1] * sin, away[1] * cos - away[0] * sin]
        assert mass.tolist() == pytest.approx([float(c) for c in clockwise], abs=0.15)


def test_no_turn_and_no_shift_show_the_image_itself() -> None:
    x = torch.rand(3, 3, 5, 9, generator=generator(1))
    assert torch.equal(Spatial().render(x, Spatial().origin(x)), x)
    assert Spatial().size(x, Spatial().origin(x)).tolist() == [0, 0, 0]
    assert Spatial().render(x[:0], Spatial().origin(x[:0])).shape == (0, 3, 5, 9)


def test_the_size_of_a_turn_is_its_largest_part_by_the_limits() -> None:
    threat, x = Spatial(30, 0.1), images(1, 1, 4, 4).expand(7, -1, -1, -1)
    adv = torch.tensor(
        [
            [15.0, 0.0, 0.0],
            [-30.0, 0.1, -0.1],
            [0.0, -0.05, 0.02],
            [30.001, 0.0, 0.0],
            [0.0, 0.1001, 0.0],
            [0.0, 0.0, -0.1001],
            [torch.nan, 0.0, 0.0],
        ]
    )
    expected = [0.5, 1.0, 0.5, 30.001 / 30, 1.001, 1.001, math.nan]
    assert threat.size(x, adv).tolist() == pytest.approx(expected, nan_ok=True)
    inside = [True, True, True, False, False, False, False]
    assert threat.contains(x, adv).tolist() == inside


def test_a_limit_of_zero_forbids_the_least_turn() -> None:
    x, some = images(2, 1, 4, 4), torch.tensor([[0.0, 0.05, 0.0], [1e-4, 0.0, 0.0]])
    assert Spatial(0, 0.1).contains(x, some).tolist() == [True, False]
    assert Spatial(30, 0).contains(x, some).tolist() == [False, True]


def test_an_image_is_turned_the_same_in_any_company() -> None:
    x = images(9, 3, 7, 5)
    adv = (torch.rand(9, 3, generator=generator(2)) - 0.5) * torch.tensor([60.0, 0.2, 0.2])
    together = Spatial().render(x, adv)
    alone = torch.cat([Spatial().render(x[i : i + 1], adv[i : i + 1]) for i in range(9)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert bool(((together >= 0) & (together <= 1)).all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Spatial(degrees=181),
        lambda: Spatial(shift=1.5),
        lambda: Spatial(degrees=-1),
        lambda: Spatial(shift=math.nan),
        lambda: Spatial(queries=0),
        lambda: Patch(area=0),
        lambda: Patch(area=1.01),
        lambda: Patch(area=math.nan),
        lambda: Patch(queries=0),
    ],
)
def test_limits_out_of_range_are_refused(make) -> None:
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize(
    ("shape", "changes", "share"),
    [
        ((1, 8, 8), [], 0),
        ((1, 8, 8), [(0, 3, 4)], 1 / 64),
        ((1, 8, 8), [(0, 1, 2), (0, 3, 6)], 3 * 5 / 64),
        ((1, 8, 8), [(0, 0, 0), (0, 7, 7)], 1),
        ((3, 4, 10), [(0, 1, 2), (2, 1, 5)], 4 / 40),
        ((3, 4, 10), [(1, 0, 9), (2, 3, 9)], 4 / 40),
        ((2, 1, 5), [(1, 0, 1), (0, 0, 3)], 3 / 5),
    ],
)
def test_a_patch_is_as_large_as_the_rectangle_around_all_changes(
    shape: tuple[int, int, int], changes: list[tuple[int, int, int]], share: float
) -> None:
    x = images(1, *shape)
    adv = x.clone()
    for place in changes:
        adv[(0, *place)] = 1.0
    assert Patch().size(x, adv).tolist() == pytest.approx([share])
    batch = Patch().size(torch.cat([x, x]), torch.cat([adv, x]))
    assert batch.tolist() == pytest.approx([share, 0])


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 11), (28, 28), (5, 3)])
def test_a_patch_is_allowed_exactly_up_to_its_area(rows: int, columns: int) -> None:
    for height in range(1, rows + 1):
        x = torch.zeros(2, 1, rows, columns)
        adv = x.clone()
        adv[0, :, rows - height :, :2] = 1
        adv[1, :, rows - height :, :3] = 1
        just = Patch(area=2 * height / (rows * columns))
        assert just.contains(x, adv).tolist() == [True, False]
        below = replace(just, area=just.area * 0.9999)
        assert below.contains(x, adv).tolist() == [False, False]


def test_a_patch_keeps_to_the_box_and_to_numbers() -> None:
    x = torch.full((4, 1, 4, 4), 0.5)
    adv = x.clone()
    adv[:, 0, 1, 1] = torch.tensor([1.0, 1.001, -0.001, torch.nan])
    assert Patch(0.1).contains(x, adv).tolist() == [True, False, False, False]


@pytest.mark.parametrize("stretch", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("area", [0.01, 0.05, 0.25, 0.5, 1.0])
def test_the_sides_of_a_largest_patch(area: float, stretch: float) -> None:
    for rows, columns in ((8, 8), (28, 28), (6, 11), (32, 4), (1, 20), (224, 224)):
        height, width = Patch(area).sides(torch.zeros(1, 1, rows, columns), stretch)
        assert 1 <= height <= rows
        assert 1 <= width <= columns
        allowed = area * rows * columns
        if allowed < 1:
            assert (height, width) == (1, 1)
            continue
        assert height * width <= allowed * (1 + 1e-5)
        assert height == rows or (height + 1) * width > allowed
        free = height < rows and width < columns
        if free and min(allowed * stretch, allowed / stretch) >= 16:
            assert height / width == pytest.approx(stretch, rel=0.35)


def test_pasting_puts_each_patch_at_its_own_corner() -> None:
    x, content = torch.zeros(2, 2, 5, 7), images(2, 2, 2, 3)
    corner = torch.tensor([[0, 4], [3, 1]])
    out = pasted(x, content, corner)
    assert torch.equal(out[0, :, 0:2, 4:7], content[0])
    assert torch.equal(out[1, :, 3:5, 1:4], content[1])
    assert int((out != 0).sum()) == content.numel()
    assert torch.equal(window(out, corner, 2, 3), content)


class Tilted(nn.Module):
    """Class 1 where the image is darker at its lower right than at its upper left by enough."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 2, x.shape[3] // 2
        low = x[:, :, rows:, columns:].flatten(1).mean(1)
        high = x[:, :, :rows, :columns].flatten(1).mean(1)
        return torch.stack([torch.zeros_like(low), high - low - 0.3, high * 0 - 5], 1)


def test_the_spatial_grid_asks_about_each_point_once() -> None:
    x = images(1, 1, 6, 6)
    attack, threat = SpatialAttack(angles=5, shifts=3), Spatial(20, 0.2)
    recorder = Recorder(Constantly(), keep=True)
    outcome = evaluate(recorder, attack, threat, Dataset(x, torch.tensor([0])))
    assert outcome.records[0].queries == 46  # 45 points and the last look
    seen = torch.cat(recorder.seen)[2:]
    shifts = torch.tensor([-0.2, 0, 0.2])
    points = torch.cartesian_prod(torch.linspace(-20, 20, 5), shifts, shifts)
    expected = threat.render(x.expand(45, -1, -1, -1), points)
    apart = (expected.flatten(1)[:, None] - seen.flatten(1)[None]).abs().amax(2)
    assert bool((apart.amin(1) < 1e-5).all())
    assert int((apart < 1e-5).sum()) == 46


class Constantly(nn.Module):
    """Class 0."""

    def forward(self, x: Tensor) -> Tensor:
        some = x.flatten(1).sum(1)
        return torch.stack([some * 0 + 1, some * 0], 1)


@pytest.mark.parametrize("search", list(Search))
def test_spatial_search_finds_the_turn_that_fools(search: Search) -> None:
    """A bright upper left is at the lower right only after half a turn or so."""
    x = torch.zeros(6, 1, 8, 8)
    x[:, :, 4:, 4:] = 0.6 + 0.05 * torch.arange(6.0).reshape(6, 1, 1, 1)
    data = Dataset(x, torch.zeros(6, dtype=torch.long))
    labels_only = Classifier(DecisionsOnly(Tilted()), access=Access.DECISIONS)
    attack = SpatialAttack(steps=60, search=search, angles=13, shifts=1)
    narrow = evaluate(labels_only, attack, Spatial(60, 0, Access.DECISIONS), data)
    assert narrow.robust_accuracy == 1.0
    wide = evaluate(labels_only, attack, Spatial(180, 0, Access.DECISIONS), data)
    assert wide.robust_accuracy == 0.0
    assert all(60 / 180 < size <= 1 for size in wide.sizes)
    to_two = evaluate(labels_only, attack, Spatial(180, 0), data, goal=Targeted(2))
    assert to_two.robust_accuracy == 1.0
    to_one = evaluate(labels_only, attack, Spatial(180, 0), data, goal=Targeted(1))
    assert to_one.robust_accuracy == 0.0
