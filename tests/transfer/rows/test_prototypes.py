"""A model that predicts from its prototypes, whatever their width."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.errors import InputError
from metarec.transfer import PrototypeBasedModel, Prototypes, extract_prototypes


def drawn(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return Prototypes(torch.randn(count, width, generator=generator), torch.rand(count, generator=generator))


@settings(max_examples=40, deadline=None)
@given(
    sources=st.lists(st.integers(1, 5), max_size=3),
    own=st.integers(1, 5),
    width=st.integers(1, 30),
    rows=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_any_width_and_number(sources, own, width, rows, seed):
    given_sources = {str(place): drawn(count, width, seed + place) for place, count in enumerate(sources)}
    model = PrototypeBasedModel(given_sources, drawn(own, width, seed + 50))
    predicted = model(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)))
    assert predicted.shape == (rows, 1)
    # Never outside of the prototypes' ratings.
    assert (predicted >= model.ratings.min() - 1e-5).all()
    assert (predicted <= model.ratings.max() + 1e-5).all()


def test_it_predicts_from_its_prototypes():
    source, target = drawn(6, 4, 0), drawn(3, 4, 1)
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(2))
    before = PrototypeBasedModel(source, target)(rows)
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    for changed in (
        (source._replace(ratings=source.ratings[order]), target),
        (source._replace(features=source.features[order]), target),
        (source, target._replace(ratings=target.ratings.flip(0))),
    ):
        assert (PrototypeBasedModel(*changed)(rows) - before).abs().max() > 0.01
    # Who is where does not matter.
    both = Prototypes(source.features[order], source.ratings[order])
    torch.testing.assert_close(PrototypeBasedModel(both, target)(rows), before)
    # A row belongs most to the prototype that it lies on.
    model = PrototypeBasedModel(source, target)
    assert model.memberships(model.features).argmax(1).tolist() == list(range(9))


def test_features_alone_are_prototypes_too():
    source, target = drawn(4, 5, 0).features, drawn(2, 5, 1).features
    model = PrototypeBasedModel({"a": source}, target)
    torch.testing.assert_close(model.ratings.detach(), torch.cat([source, target]).mean(1))
    assert model(target).shape == (2, 1)


def test_rated_rows_move_ratings_by_what_they_are_worth():
    source, target = drawn(5, 3, 0), drawn(3, 3, 1)
    rows, ratings = torch.randn(40, 3, generator=torch.Generator().manual_seed(2)), torch.full((40,), 0.9)
    before = PrototypeBasedModel(source, target)
    errors = [(before(rows).squeeze(-1) - ratings).square().mean()]
    for strength in (1e9, 10.0, 0.1):
        model = PrototypeBasedModel(source, target).fit(rows, ratings, strength=strength)
        errors.append((model(rows).squeeze(-1) - ratings).square().mean())
    torch.testing.assert_close(errors[0], errors[1])
    assert errors[1] > errors[2] > errors[3]
    assert torch.equal(source.ratings, drawn(5, 3, 0).ratings)


def test_prototypes_are_found_again():
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(3).repeat(20)
    rows = centres[kinds] + 0.1 * torch.randn(60, 2, generator=generator)
    found = extract_prototypes(rows, kinds / 2, 3, seed=0)
    order = found.ratings.argsort()
    torch.testing.assert_close(found.features[order], centres, atol=0.1, rtol=0)
    torch.testing.assert_close(found.ratings[order], torch.tensor([0.0, 0.5, 1.0]))
    # Fewer different rows than prototypes: each is one.
    twins = extract_prototypes(rows[:2].repeat(3, 1), torch.rand(6, generator=generator), 5, seed=0)
    assert twins.features.shape == (2, 2)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.rand(3), torch.rand(2, 3), r"source_prototypes must be \[K, F\], finite, .* but got \[3\]"),
        ({"a": torch.rand(2, 3)}, torch.rand(0, 3), r"target_prototypes must be .* but got \[0, 3\]"),
        (torch.rand(2, 3), torch.rand(2, 4), r"same number of features but have \[3, 4\]; align them"),
        (Prototypes(torch.rand(2, 3), torch.rand(3)), torch.rand(2, 3), r"must have 2 finite ratings but got \[3\]"),
    ],
)
def test_prototypes_are_checked(source, target, message):
    with pytest.raises(InputError, match=message):
        PrototypeBasedModel(source, target)


def test_rows_are_checked():
    model = PrototypeBasedModel(torch.rand(2, 3), torch.rand(2, 3))
    with pytest.raises(InputError, match=r"features must be \[B, 3\] but got \[4, 2\]"):
        model(torch.rand(4, 2))
    with pytest.raises(InputError, match="strength must be > 0 and finite but got 0"):
        model.fit(torch.rand(4, 3), torch.rand(4), strength=0)
    with pytest.raises(InputError, match=r"ratings must be \[4\]"):
        model.fit(torch.rand(4, 3), torch.rand(5))
