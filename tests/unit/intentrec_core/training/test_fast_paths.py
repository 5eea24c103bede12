"""Training's hand-written gradients equal autograd of the plain definitions, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from intentrec_core.model.attention import FullAttend
from intentrec_core.model.dropout import Dropout, keep_mask
from intentrec_core.model.own_items import OwnOffsets
from intentrec_core.training import attend, item_softmax
from intentrec_core.training.attend import TrainingAttend
from intentrec_core.training.item_softmax import item_cross_entropy

#: Of float32 sums over some dozens of values, in another order.
TOLERANCE = 1e-4
CPU = torch.device("cpu")


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(output, inputs, torch.randn(output.shape))


@pytest.mark.parametrize("chunk_plays", [1, 5, 100])
def test_the_loss_over_items_is_that_of_all_scores_at_once(chunk_plays: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_softmax, "MIN_CHUNK_PLAYS", chunk_plays)
    monkeypatch.setattr(item_softmax, "CHUNK_SCORES", 1)
    torch.manual_seed(0)
    query, weight, bias = (torch.randn(*size, requires_grad=True) for size in ((17, 11), (30, 8), (30,)))
    labels = torch.rand(30, 3)
    hidden = torch.cat([bias.new_full((1,), float("-inf")), bias[1:]])  # as row 0 of a model
    row, share = torch.randint(1, 30, (17,)), torch.rand(17)
    found = item_cross_entropy(query, weight, labels, hidden, row, share)
    logits = functional.linear(query, torch.cat([weight, labels], dim=1), hidden)
    expected = (functional.cross_entropy(logits, row, reduction="none") * share).sum()
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    for got, wanted in zip(
        gradients(found, query, weight, bias), gradients(expected, query, weight, bias), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_columns_of_each_play_are_part_of_the_loss_over_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_softmax, "MIN_CHUNK_PLAYS", 5)
    monkeypatch.setattr(item_softmax, "CHUNK_SCORES", 1)
    torch.manual_seed(0)
    query, weight, bias, gate = (torch.randn(*size, requires_grad=True) for size in ((17, 8), (30, 8), (30,), (17, 3)))
    columns, row, share = torch.randn(17, 3, 30), torch.randint(1, 30, (17,)), torch.rand(17)
    labels = weight.new_zeros(30, 0)
    found = item_cross_entropy(query, weight, labels, bias, row, share, gate, lambda which: columns[which])
    logits = functional.linear(query, weight, bias) + torch.einsum("nc,ncv->nv", gate, columns)
    expected = (functional.cross_entropy(logits, row, reduction="none") * share).sum()
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    inputs = (query, weight, bias, gate)
    for got, wanted in zip(gradients(found, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_offsets_of_own_items_are_part_of_the_loss_over_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_softmax, "MIN_CHUNK_PLAYS", 5)
    monkeypatch.setattr(item_softmax, "CHUNK_SCORES", 1)
    torch.manual_seed(0)
    query, weight, bias, offset = (
        torch.randn(*size, requires_grad=True) for size in ((17, 8), (30, 8), (30,), (17, 4))
    )
    own_row = torch.stack([torch.randperm(29)[:4] + 1 for _ in range(17)])
    row, share, labels = own_row[:, 0].clone(), torch.rand(17), weight.new_zeros(30, 0)
    row[:9] = torch.randint(1, 30, (9,))
    found = item_cross_entropy(query, weight, labels, bias, row, share, own=OwnOffsets(own_row, offset))
    logits = functional.linear(query, weight, bias).scatter_add(1, own_row, offset)
    expected = (functional.cross_entropy(logits, row, reduction="none") * share).sum()
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    inputs = (query, weight, bias, offset)
    for got, wanted in zip(gradients(found, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("chunk_scores", [1, 2 * 2 * 9 * 9, 1 << 18])
def test_attention_in_training_is_that_of_the_reference(
    layer: int, chunk_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attend, "CHUNK_SCORES", chunk_scores)
    torch.manual_seed(0)
    ts_s = torch.rand(5, 9, dtype=torch.float64).cumsum(dim=1) * 1000
    q, k, v = (torch.randn(5, 9, 2, 4, requires_grad=True) for _ in range(3))
    slopes = torch.randn(2, 2, requires_grad=True)
    found = TrainingAttend(ts_s, 1200.0, dropout=0.0)(layer, q, k, v, slopes)
    expected = FullAttend(ts_s, 1200.0)(layer, q, k, v, slopes)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    for got, wanted in zip(gradients(found, q, k, v, slopes), gradients(expected, q, k, v, slopes), strict=True):
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_dropped_attention_has_the_gradient_of_what_it_computed() -> None:
    """Against finite differences, with the same keys dropped each time."""
    torch.manual_seed(0)
    ts_s = torch.rand(2, 5, dtype=torch.float64).cumsum(dim=1) * 1000
    inputs = [torch.randn(2, 5, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    inputs.append(torch.randn(2, 2, dtype=torch.float64, requires_grad=True))
    attention = TrainingAttend(ts_s, 1200.0, dropout=0.4)

    def seeded(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attention(0, q, k, v, slopes)

    assert torch.autograd.gradcheck(seeded, inputs)


def test_attention_with_dropout_is_right_on_average() -> None:
    torch.manual_seed(0)
    ts_s = torch.rand(1, 6, dtype=torch.float64).cumsum(dim=1) * 1000
    q, k, v = (torch.randn(1, 6, 2, 4) for _ in range(3))
    slopes = torch.randn(2, 2)
    num = 4000
    many = TrainingAttend(ts_s.expand(num, -1), 1200.0, dropout=0.5)
    mean = many(1, *(x.expand(num, -1, -1, -1) for x in (q, k, v)), slopes).mean(dim=0, keepdim=True)
    # A standard deviation of at most 2 over the root of 4,000 draws is 0.03.
    torch.testing.assert_close(mean, FullAttend(ts_s, 1200.0)(1, q, k, v, slopes), atol=0.15, rtol=0)


def test_as_many_are_dropped_as_asked_for_and_sums_stay() -> None:
    torch.manual_seed(0)
    num = 400_003
    for ratio in (0.05, 0.3, 0.9):
        # five standard deviations of a mean of so many draws
        assert float(keep_mask((num,), ratio, CPU).float().mean()) == pytest.approx(1 - ratio, abs=4e-3)
    dropped = Dropout(0.3).train()(torch.ones(num))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float(dropped.mean()) == pytest.approx(1.0, abs=6e-3)
    assert torch.equal(Dropout(0.3).eval()(dropped), dropped)


def test_neighbours_are_dropped_independently() -> None:
    """Four decisions come from one number: none of them may say anything of another."""
    torch.manual_seed(0)
    keep = keep_mask((100_000, 4), 0.5, CPU).float()
    correlation = torch.corrcoef(keep.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 0.02  # six standard deviations
