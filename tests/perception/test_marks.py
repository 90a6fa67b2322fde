import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.perception.marks import Marks, cells
from policies.perception.marks_config import MarksConfig
from robo.core.errors import ConfigError

VIEWS = ("front", "left")
NOWHERE = torch.zeros(1, 2, 0, 2)


def spots(where: torch.Tensor, size: int = 32) -> torch.Tensor:
    """Pictures (B, size, size, 3) of a light spot at rows and columns (B, 2)."""
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), -1)
    far = (grid - where[:, None, None]).square().sum(-1)
    return (255 * torch.exp(-far / 8.0))[..., None].expand(-1, -1, -1, 3).to(torch.uint8)


def scenes(count: int, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three numbers, of which one view shows the first two and the other the last two; the fourth is always 7."""
    xyz = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    seen = {"front": spots(4 + 24 * xyz[:, :2]), "left": spots(4 + 24 * xyz[:, 1:])}
    return seen, torch.cat([xyz, torch.full((count, 1), 7.0)], dim=1)


def test_it_tells_where_things_are_that_it_has_never_seen():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    marks, (seen, truth) = Marks(VIEWS, (8, 16), 8, 32, 4), scenes(256, 0)
    marks.scale.fit(truth)
    optimiser = torch.optim.Adam(marks.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        rows = torch.randint(256, (32,), generator=generator)
        loss, _, _ = marks.loss({view: x[rows] for view, x in seen.items()}, truth[rows], NOWHERE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    new, wanted = scenes(64, 1)
    with torch.no_grad():
        found = marks(new)
    assert found.shape == (64, marks.size) and marks.size == 4 + 2 * 2 * 8
    assert (marks.scene(found)[:, :3] - wanted[:, :3]).abs().mean() < 0.06  # a guess at random is off by a third
    assert (marks.scene(found)[:, 3] - 7.0).abs().max() < 0.1
    assert found[:, :-4].abs().max() <= 1.0


def test_what_is_far_beyond_all_that_was_known_does_not_drown_the_rest() -> None:
    marks, (seen, truth) = Marks(VIEWS, (8, 16), 8, 32, 4), scenes(16, 0)
    marks.scale.fit(truth)
    gone = truth.clone()
    gone[0, 0] = -1e4  # it fell off the table
    assert marks.loss(seen, gone, NOWHERE)[0] < marks.loss(seen, truth, NOWHERE)[0] + 0.2


def bars(count: int, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Light bars anywhere, turned; cosine and sine of twice the angle by which they are, for half a turn is none."""
    generator = torch.Generator().manual_seed(seed)
    middle, turn = (
        10 + 12 * torch.rand(count, 2, generator=generator),
        torch.pi * torch.rand(count, generator=generator),
    )
    grid = torch.stack(torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij"), -1) - middle[:, None, None]
    along = torch.stack([turn.cos(), turn.sin()], -1)[:, None, None]
    reach = (grid * along).sum(-1)
    beside = grid[..., 0] * along[..., 1] - grid[..., 1] * along[..., 0]
    light = 255 * ((reach.abs() < 7) & (beside.abs() < 2))
    picture = light[..., None].expand(-1, -1, -1, 3).to(torch.uint8)
    return {view: picture for view in VIEWS}, torch.stack([(2 * turn).cos(), (2 * turn).sin()], 1)


def test_what_things_look_like_where_it_looks_tells_how_they_are_turned() -> None:
    torch.manual_seed(0)
    marks, (seen, truth) = Marks(VIEWS, (8, 16, 16), 4, 64, 2, looks=2), bars(512, 0)
    assert marks.size == 2 + 2 * (2 * 4 + 2 * 16)
    marks.scale.fit(truth)
    optimiser = torch.optim.Adam(marks.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        rows = torch.randint(512, (32,), generator=generator)
        optimiser.zero_grad()
        marks.loss({view: x[rows] for view, x in seen.items()}, truth[rows], NOWHERE)[0].backward()
        optimiser.step()
    new, wanted = bars(128, 1)
    with torch.no_grad():
        told = marks.scene(marks(new))
    off = torch.atan2(told[:, 1], told[:, 0]) - torch.atan2(wanted[:, 1], wanted[:, 0])
    off = torch.remainder(off + torch.pi, 2 * torch.pi) - torch.pi
    assert off.abs().median() / 2 < 0.17  # at random: 0.8 rad


@given(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), st.integers(1, 9), st.integers(1, 9))
def test_cells_about_a_place_have_it_in_their_middle(place: tuple[float, float], rows: int, columns: int) -> None:
    shares = cells(torch.tensor([place], dtype=torch.float64), rows, columns)
    assert shares.shape == (1, rows * columns) and shares.min() >= 0 and (shares > 0).sum() <= 4
    assert shares.sum().item() == pytest.approx(1.0)
    grid = shares.view(rows, columns)
    for share, count, at in ((grid.sum(0), columns, place[0]), (grid.sum(1), rows, place[1])):
        middle = (share * ((torch.arange(count) + 0.5) * 2 / count - 1)).sum().item()
        assert middle == pytest.approx(np.clip(at, 1 / count - 1, 1 - 1 / count), abs=1e-6)


def test_who_is_told_where_in_pictures_a_thing_is_points_at_it() -> None:
    torch.manual_seed(0)
    marks, (seen, truth) = Marks(VIEWS, (8, 16, 16), 4, 32, 4, looks=1, things=1), scenes(256, 0)
    assert marks.size == 4 + 2 * (2 * 5 + 2 * 16)

    def pixels(values: torch.Tensor) -> torch.Tensor:
        """Of the spots, right and down; rows come first in `scenes`."""
        spots = torch.stack([values[:, :2], values[:, 1:3]], 1).flip(-1)
        return ((4 + 24 * spots + 0.5) / 16 - 1)[:, :, None]

    optimiser = torch.optim.Adam(marks.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        rows = torch.randint(256, (32,), generator=generator)
        optimiser.zero_grad()
        marks.loss({view: x[rows] for view, x in seen.items()}, truth[rows], pixels(truth[rows]))[1].backward()
        optimiser.step()
    new, wanted = scenes(64, 1)
    with torch.no_grad():
        _, maps = marks.trunk(new)
        shares = maps.flatten(3).softmax(-1).view(64, 2, 8, 8)
    middles = (torch.arange(8) + 0.5) / 4 - 1
    found = torch.stack([(shares.sum(2) * middles).sum(-1), (shares.sum(3) * middles).sum(-1)], -1)
    assert (found - pixels(wanted)[:, :, 0]).abs().mean() < 0.12  # at random: a half
    # The same from what it tells others, with how far that is off.
    with torch.no_grad():
        places, (spread, off) = marks.pointed(marks(new)), marks.off(marks(new))
    torch.testing.assert_close(places[:, :, 0], found)
    assert off.shape == (64, 2, 1) and off.min() > 0 and spread.shape == (64, 4) and spread.min() > 0
    # What is in no picture teaches nothing of where it is.
    gone = torch.full((8, 2, 1, 2), float("inf"))
    told, pointing, _ = marks.loss({view: x[:8] for view, x in seen.items()}, truth[:8], gone)
    assert pointing == 0 and torch.isfinite(told)
    plain = Marks(VIEWS, (8, 16, 16), 4, 32, 4)  # points at none, whatever is known
    assert plain.loss({view: x[:8] for view, x in seen.items()}, truth[:8], pixels(truth[:8]))[1] == 0
    half = gone.clone()
    half[:, 0] = 0.2
    assert torch.isfinite(marks.loss({view: x[:8] for view, x in seen.items()}, truth[:8], half)[1])


def test_it_says_how_far_it_is_off() -> None:
    torch.manual_seed(0)
    marks, (seen, truth) = Marks(VIEWS, (8, 16), 4, 32, 4, looks=1, things=1), scenes(256, 0)
    marks.scale.fit(truth)
    place = ((4 + 24 * truth[:, :2] + 0.5) / 16 - 1).flip(-1)
    pixels = torch.stack([place, place], 1)[:, :, None].clone()
    pixels[:, 1] = float("inf")  # the other view never shows it
    before = {name: value.clone() for name, value in marks.trunk.state_dict().items()}
    optimiser = torch.optim.Adam(marks.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        marks.loss(seen, truth, pixels)[2].backward()
        optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in marks.trunk.state_dict().items())
    with torch.no_grad():
        told = marks(seen)
        places, (spread, off) = marks.pointed(told), marks.off(told)
        errors = (marks.scene(told) - truth).abs()
    real = (places - pixels)[:, 0].norm(dim=-1)
    assert 0.3 < (real < off[:, 0]).float().mean() < 0.7  # medians
    assert (off[:, 1] > 0.7).all()
    assert ((errors < spread).float().mean(0)[:3] - 0.5).abs().max() < 0.2  # the last one never differs


def test_what_cannot_be_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"marks.pointing must not be negative, not -0.5"):
        MarksConfig(pointing=-0.5)
    with pytest.raises(ConfigError, match=r"marks.looks must not be negative, not -1"):
        MarksConfig(looks=-1)
    marks, (seen, _) = Marks(VIEWS, (8,), 2, 8, 2, looks=1), bars(2, 0)
    assert marks(seen).shape == (2, marks.size)  # a single halving will do
    with pytest.raises(ConfigError, match="one frame at a time"):
        marks({view: x[:, None].expand(-1, 2, -1, -1, -1) for view, x in seen.items()})
