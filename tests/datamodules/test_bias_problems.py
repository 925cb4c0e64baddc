"""Problems: a function of seed and number, separable, and of the size that steps are measured by."""

import numpy as np
import pytest
import torch

from theodolite.datamodules import MatrixSensingDataModule, SeparableDataModule, UnderdeterminedDataModule
from theodolite.modules.bias.max_margin import max_margin


def batch(data, loader="train_dataloader"):
    (only,) = getattr(data, loader)()
    return only


@pytest.mark.parametrize("kind", [SeparableDataModule, UnderdeterminedDataModule, MatrixSensingDataModule])
def test_problem_is_a_function_of_seed_and_number(kind):
    few, many = batch(kind(problems=2, seed=3)), batch(kind(problems=4, repeats=2, seed=3))
    assert many.problem.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    for first, second in ((few, many), (batch(kind(problems=2, seed=3), "test_dataloader"), few)):
        for a, b in zip(first, second):
            assert torch.equal(a[:2], b[:2])
    assert torch.equal(many.x[:4], many.x[4:])
    assert not torch.equal(many.x[0], many.x[1])
    assert not torch.equal(few.x, batch(kind(problems=2, seed=4)).x)


@pytest.mark.parametrize("teacher", ["gaussian", "waves"])
def test_classes_are_separable_by_at_least_the_shift(teacher):
    data = batch(SeparableDataModule(teacher=teacher, problems=20, num_samples=40))
    for x, y in zip(data.x, data.y):
        assert float(max_margin(x * y.unsqueeze(1))[0]) >= 0.3


@pytest.mark.parametrize(
    ("normalize", "size"),
    [
        ("l1", lambda x: x.abs().sum(1).max()),
        ("l2", lambda x: x.norm(dim=1).max()),
        ("linf", lambda x: x.abs().max()),
        ("nuclear", lambda x: torch.linalg.svdvals(x.view(-1, 3, 3)).sum(1).max()),
        ("spectral", lambda x: torch.linalg.matrix_norm(x, 2)),
    ],
)
def test_normalized_data_have_size_one(normalize, size):
    for x in batch(SeparableDataModule(dimension=9, normalize=normalize)).x:
        assert float(size(x)) == pytest.approx(1)


@pytest.mark.parametrize("target", ["sparse", "positive", "simplex"])
def test_equations_have_a_solution_of_the_stated_kind(target):
    data = batch(UnderdeterminedDataModule(target=target, normalize="spectral"))
    for x, y in zip(data.x, data.y):
        assert float(torch.linalg.matrix_norm(x, 2)) == pytest.approx(1)
        if target == "sparse":
            torch.testing.assert_close(x[:, 0] + x[:, 1], y)
        else:
            from theodolite.modules.bias.references import min_l1

            rows = torch.cat([x, torch.ones(1, 20, dtype=torch.float64)]) if target == "simplex" else x
            targets = torch.cat([y, torch.ones(1, dtype=torch.float64)]) if target == "simplex" else y
            assert float(min_l1(rows, targets, nonnegative=True).min()) >= 0


def test_matrices_are_symmetric_and_the_completion_is_the_published_one():
    data = batch(MatrixSensingDataModule(num_samples=5, size=4))
    a = data.x.view(5, 5, 4, 4)
    torch.testing.assert_close(a, a.transpose(2, 3))
    completion = batch(MatrixSensingDataModule(measurements="completion", problems=1))
    seen = completion.x[0] @ torch.tensor([7.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    np.testing.assert_allclose(seen, completion.y[0])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SeparableDataModule(shift=0.0), "shift=0.0"),
        (lambda: SeparableDataModule(normalize="nuclear"), "no square matrices"),
        (lambda: SeparableDataModule(problems=0), "problems=0"),
        (lambda: UnderdeterminedDataModule(num_samples=20), "above num_samples=20"),
        (lambda: MatrixSensingDataModule(rank=0), "rank=0"),
    ],
)
def test_wrong_sizes_are_refused_at_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
