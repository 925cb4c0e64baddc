"""Recurrent networks that read tokens and give what the next one is predicted from."""

import torch
from torch import Tensor, nn

__all__ = ["LSTMNetwork", "State"]

#: Hidden and cell state of a stack of LSTM layers, each (layers, B, width).
State = tuple[Tensor, Tensor]


class LSTMNetwork(nn.Module):
    """Embedding, LSTM layers and a linear decoder to the logits of the next token.

    The small network of `Zaremba et al. 2014 <https://arxiv.org/abs/1409.2329>`_ by default, which `Freeman & Bruna
    2017 <https://arxiv.org/abs/1611.01540>`_ use: weights begin uniform, the biases of the LSTM at zero.

    Args:
        num_tokens: Size of the vocabulary V.
        width: Of the embedding and of each layer.
        layers: LSTM layers, >= 1.
        dropout: Share of each layer's inputs and of the decoder's that training drops, in [0, 1).
        initial: Weights begin uniform on (-initial, initial), > 0.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, num_tokens: int, width: int = 200, layers: int = 2, dropout: float = 0.0, initial: float = 0.1
    ) -> None:
        super().__init__()
        if min(num_tokens, width, layers) < 1 or not 0 <= dropout < 1 or not initial > 0:
            msg = (
                f"LSTMNetwork(num_tokens={num_tokens}, width={width}, layers={layers}, dropout={dropout}, "
                f"initial={initial}): the first three must be at least 1, dropout in [0, 1), initial positive."
            )
            raise ValueError(msg)
        self.initial = initial
        self.embedding = nn.Embedding(num_tokens, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.drop = nn.Dropout(dropout)
        self.decoder = nn.Linear(width, num_tokens)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new initial parameters from torch's generator."""
        for name, parameter in self.named_parameters():
            if name.startswith("lstm.bias"):
                parameter.zero_()
            else:
                parameter.uniform_(-self.initial, self.initial)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read on.

        Args:
            tokens: int64 (B, T).
            state: What was kept of the text before; ``None`` for its beginning.

        Returns:
            Features, (B, T, width), that :meth:`decode` makes logits of, and the state after the last token.
        """
        features, after = self.lstm(self.drop(self.embedding(tokens)), state)
        return self.drop(features), after

    def decode(self, features: Tensor) -> Tensor:
        """Map features (..., width) to the logits of the next token, (..., V)."""
        return self.decoder(features)
