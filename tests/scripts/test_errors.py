"""Messages of others, said in one line that ends with what to do."""

import pytest

from theodolite.scripts.errors import one_line


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("unrecognized arguments: --trainer.max_epoch 3", "--help"),
        ("Invalid learning rate: -1.0", "--model.optimizer.lr"),
        ("optimizer got an empty parameter list", "theodolite test"),
    ],
)
def test_messages_without_a_remedy_get_one(message, remedy):
    text = one_line(message)
    assert text.startswith(message)
    assert remedy in text
    assert "\n" not in text
