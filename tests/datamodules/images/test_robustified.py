"""What is in robustified sets, and the representation that makes them."""

import pytest
import torch

from theodolite.datamodules.images.robustified import draw_others
from theodolite.modules.classification import ImageClassifier, Representation, SmallCNN

from .made_by_hand import robustified, whole


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_robustified_image_is_represented_like_its_original_and_starts_from_another(tmp_path, bfloat16):
    data = robustified(tmp_path, bfloat16=bfloat16)
    represent = Representation(ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval())
    before, after = whole(data.source.dataset("train")), whole(data.dataset("train"))
    assert torch.equal(after.y, before.y)
    others = before.x[draw_others(torch.arange(len(before.y)), len(before.y), 0)]
    with torch.no_grad():
        goal, start, end = (represent(x) for x in (before.x, others, after.x))
    distance = torch.linalg.vector_norm(end - goal, dim=1) / torch.linalg.vector_norm(start - goal, dim=1)
    assert distance.median() < 0.5
    nearer_start = torch.linalg.vector_norm((after.x - others).flatten(1), dim=1) < torch.linalg.vector_norm(
        (after.x - before.x).flatten(1), dim=1
    )
    assert nearer_start.float().mean() > 0.8
    assert after.x.min() >= 0
    assert after.x.max() <= 1
    assert 0 <= data.statistics()["still_correct"] <= 1
    assert not torch.equal(whole(robustified(tmp_path, set_seed=1, bfloat16=bfloat16).dataset("train")).x, after.x)


def test_other_images_are_drawn_evenly_and_never_ones_own():
    numbers = torch.arange(40_000)
    for size in (2, 7):
        own = numbers[:size]
        assert (draw_others(own, size, 0) != own).all()
    drawn = torch.cat([draw_others(torch.arange(5), 5, seed) for seed in range(4000)]).view(4000, 5)
    for number in range(5):
        counts = drawn[:, number].bincount(minlength=5)
        assert counts[number] == 0
        assert ((counts - 1000).abs() < 4 * 1000**0.5).sum() == 4


def test_representation_is_what_the_last_linear_layer_is_fed():
    network = SmallCNN(num_classes=3, input_shape=(1, 6, 6), width=4)
    x = torch.rand(5, 1, 6, 6)
    represent = Representation(ImageClassifier(network, 3))
    torch.testing.assert_close(network[-1](represent(x)), network(x))
    assert not network[-1]._forward_pre_hooks
    with pytest.raises(ValueError, match="Representation: Flatten has no linear layer"):
        Representation(torch.nn.Flatten())
