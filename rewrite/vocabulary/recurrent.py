"""Recurrent layers and their cells.

The layers set no output size here: it is `hidden_size`, twice that when `bidirectional`, `proj_size` where that is
given.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation

_READS = {"input_size": -1}
_DEFAULTS = {"hidden_size": "input_size"}

RECURRENT = (
    Operation(
        "RNN",
        signature="input_size, hidden_size, num_layers=1, nonlinearity='tanh', bias=True, batch_first=False, "
        "dropout=0.0, bidirectional=False",
        reads=_READS,
        defaults=_DEFAULTS,
        rank=3,
        outputs=2,
        module="torch.nn.RNN",
    ),
    Operation(
        "LSTM",
        signature="input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, "
        "bidirectional=False, proj_size=0",
        reads=_READS,
        defaults=_DEFAULTS,
        rank=3,
        outputs=2,
        module="torch.nn.LSTM",
    ),
    Operation(
        "GRU",
        signature="input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, "
        "bidirectional=False",
        reads=_READS,
        defaults=_DEFAULTS,
        rank=3,
        outputs=2,
        module="torch.nn.GRU",
    ),
    Operation(
        "RNNCell",
        signature="input_size, hidden_size, bias=True, nonlinearity='tanh'",
        reads=_READS,
        writes={"hidden_size": -1},
        defaults=_DEFAULTS,
        rank=2,
        module="torch.nn.RNNCell",
    ),
    Operation(
        "LSTMCell",
        signature="input_size, hidden_size, bias=True",
        reads=_READS,
        writes={"hidden_size": -1},
        defaults=_DEFAULTS,
        rank=2,
        outputs=2,
        module="torch.nn.LSTMCell",
    ),
    Operation(
        "GRUCell",
        signature="input_size, hidden_size, bias=True",
        reads=_READS,
        writes={"hidden_size": -1},
        defaults=_DEFAULTS,
        rank=2,
        module="torch.nn.GRUCell",
    ),
)
