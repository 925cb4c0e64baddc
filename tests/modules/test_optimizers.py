import copy

import pytest
import torch

from theodolite.modules.optimizers import Muon


def problem() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)), torch.randn(16, 5)


def train(module: torch.nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


def test_matrices_follow_torch_muon_and_the_rest_adam() -> None:
    module, x = problem()
    reference = copy.deepcopy(module)
    train(module, x, Muon(module.parameters(), lr=0.02), 5)
    matrices = [p for p in reference.parameters() if p.ndim == 2]
    vectors = [p for p in reference.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam(vectors, lr=0.02)
    for _ in range(5):
        reference.zero_grad()
        reference(x).square().mean().backward()
        muon.step()
        adam.step()
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_loaded_state_goes_on_bit_for_bit() -> None:
    module, x = problem()
    optimizer = Muon(module.parameters())
    train(module, x, optimizer, 3)
    other = copy.deepcopy(module)
    resumed = Muon(other.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(module, x, optimizer, 3)
    train(other, x, resumed, 3)
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_scheduler_reaches_both_kinds() -> None:
    module, x = problem()
    optimizer = Muon(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(module.state_dict())
    train(module, x, optimizer, 2)
    assert schedule.get_last_lr() == [0.0, 0.0]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"lr": -1.0}, {"momentum": 1.0}])
def test_a_setting_out_of_range_is_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Muon(problem()[0].parameters(), **settings)
