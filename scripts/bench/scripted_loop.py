"""What one writes without fused kernels: recurrent layers as a TorchScript loop."""

import torch
from torch import Tensor, nn


class ScriptedLoop(nn.Module):
    """What one writes without fused kernels: a TorchScript loop over the steps, both directions."""

    def __init__(
        self, features: int, hidden: int, peephole: bool, coupled: bool, zoneout: float, dropout: float
    ):
        super().__init__()
        gates = (3 if coupled else 4) * hidden
        self.weight_ih = nn.Parameter(torch.randn(2, gates, features) / hidden**0.5)
        self.weight_hh = nn.Parameter(torch.randn(2, gates, hidden) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(2, gates))
        self.peepholes = nn.Parameter(torch.zeros(2, 3, hidden))
        self.hidden, self.peephole, self.coupled, self.zoneout, self.dropout = (
            hidden,
            peephole,
            coupled,
            zoneout,
            dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for d in range(2):
            steps = x if d == 0 else x.flip(1)
            shares = torch.matmul(steps, self.weight_ih[d].t()) + self.bias[d]
            h = torch.zeros(x.size(0), self.hidden)
            c = torch.zeros(x.size(0), self.hidden)
            mask = torch.ones_like(h)
            if self.dropout > 0:
                mask = torch.empty_like(h).bernoulli_(1 - self.dropout) / (1 - self.dropout)
            weight = self.weight_hh[d].t()
            ys: list[Tensor] = []
            for t in range(x.size(1)):
                sums = (shares[:, t] + torch.matmul(h * mask, weight)).chunk(3 if self.coupled else 4, 1)
                f, g, o = sums[0] if self.coupled else sums[1], sums[-2], sums[-1]
                i = sums[0]
                if self.peephole:
                    f = f + self.peepholes[d, 1] * c
                    i = i + self.peepholes[d, 0] * c
                f = torch.sigmoid(f)
                i = 1 - f if self.coupled else torch.sigmoid(i)
                c_new = f * c + i * torch.tanh(g)
                if self.peephole:
                    o = o + self.peepholes[d, 2] * c_new
                h_new = torch.sigmoid(o) * torch.tanh(c_new)
                if self.zoneout > 0:
                    keep_h = torch.empty_like(h).bernoulli_(self.zoneout)
                    keep_c = torch.empty_like(h).bernoulli_(self.zoneout)
                    h_new = keep_h * h + (1 - keep_h) * h_new
                    c_new = keep_c * c + (1 - keep_c) * c_new
                h, c = h_new, c_new
                ys.append(h)
            y = torch.stack(ys, 1)
            outputs.append(y if d == 0 else y.flip(1))
        return torch.cat(outputs, 2)
