"""What surrounds the recurrence on a GPU: large products over all frames at once, in plain PyTorch.

D directions, B batch, T frames, G gates, H hidden, P output, I input.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from asr.recurrent.cells import Weights


def running(initial: Tensor) -> Tensor:
    """Copy a state to where the kernels update it: contiguous fp32."""
    return initial.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def sort(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Sort lengths, longest first; returns them and each row's place in the batch, both int32."""
    values, order = lengths.sort(descending=True, stable=True)
    return values.int(), order.int()


def input_gates(x: Tensor, w: Weights) -> Tensor:
    """Return W_ih x + b_ih of both directions, (B, T, D*G*H)."""
    return F.linear(x, w.weight_ih.flatten(0, 1), None if w.bias_ih is None else w.bias_ih.flatten())


def previous(initial: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Return each step's state before it: (D, B, N) and (B, T, D, N) give (B, T, D, N), finite in the padding."""
    previous = torch.zeros_like(sequence)
    if sequence.shape[1]:
        previous[:, 1:, 0] = sequence[:, :-1, 0]
        previous[:, 0, 0] = initial[0]
    if sequence.shape[2] == 2:
        frame = torch.arange(sequence.shape[1], device=sequence.device)
        last = (frame == lengths[:, None] - 1)[..., None]
        after = F.pad(sequence[:, 1:, 1], (0, 0, 0, 1))
        previous[:, :, 1] = torch.where(last, initial[1][:, None], after)
    return previous


def first_steps(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Return what each direction's first step left in (B, T, D, ...), flattened: (D, B, N)."""
    batch, frames, directions = sequence.shape[:3]
    first = sequence.new_zeros(directions, batch, sequence.shape[3:].numel())
    if frames:
        rows = torch.arange(batch, device=sequence.device)
        first[0] = sequence[:, 0, 0].flatten(1)
        if directions == 2:
            first[1] = sequence[rows, (lengths - 1).clamp(min=0), 1].flatten(1)
    return first


def weight_gradient(doutput: Tensor, inputs: Tensor) -> Tensor:
    """Sum the outer products over the frames: (B, T, D, ...) of N and of K numbers give (D, N, K)."""
    doutput, inputs = (t.flatten(0, 1).flatten(2) for t in (doutput, inputs))
    return torch.bmm(doutput.permute(1, 2, 0), inputs.transpose(0, 1))


def activations(
    x: Tensor, w: Weights, h_in: Tensor, old_c: Tensor | None, kept: Tensor, cell: str, cell_clip: float
) -> Tensor:
    """Compute the activated gates of every frame again: with h known, the recurrent product is one large one.

    Arguments: h_in, what the recurrent weights multiplied, and old_c, c before each step, where there are peepholes;
    kept as in `primitives.Forward`; cell, a step's name. Returns (B, T, D, G, H).
    """
    D, _, P = w.weight_hh.shape
    H = kept.shape[-1] if kept.numel() else P
    share_x = input_gates(x, w).view(*x.shape[:2], D, -1, H)
    flat_h = h_in.view(-1, D, P).transpose(0, 1)

    def product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = torch.bmm(inputs, weight.transpose(1, 2))
        out = out if bias is None else out + bias[:, None]
        return out.transpose(0, 1).reshape(*x.shape[:2], D, -1, H)

    if cell == "gru_before":
        bias_rz, bias_n = (None, None) if w.bias_hh is None else w.bias_hh.split([2 * H, H], 1)
        weight_rz, weight_n = w.weight_hh.split([2 * H, H], 1)
        rz = torch.sigmoid(share_x[:, :, :, :2] + product(flat_h, weight_rz, bias_rz))
        reset_h = (rz[:, :, :, 0] * h_in).view(-1, D, P).transpose(0, 1)
        n = torch.tanh(share_x[:, :, :, 2:] + product(reset_h, weight_n, bias_n))
        return torch.cat([rz, n], 3)
    share_h = product(flat_h, w.weight_hh, w.bias_hh)
    if cell == "gru_after":
        rz = torch.sigmoid(share_x[:, :, :, :2] + share_h[:, :, :, :2])
        return torch.cat([rz, torch.tanh(share_x[:, :, :, 2:] + rz[:, :, :, :1] * kept.unsqueeze(3))], 3)
    if cell == "rnn_tanh":
        return torch.tanh(share_x + share_h)
    return _lstm_activations(share_x + share_h, w.weight_peephole, old_c, cell, cell_clip)


def _lstm_activations(
    gates: Tensor, peephole: Tensor | None, old_c: Tensor | None, cell: str, cell_clip: float
) -> Tensor:
    *in_forget, g, o = gates.unbind(3)
    if peephole is None or old_c is None:
        return torch.stack([*(torch.sigmoid(gate) for gate in in_forget), torch.tanh(g), torch.sigmoid(o)], 3)
    in_forget = [
        torch.sigmoid(gate + old_c * p) for gate, p in zip(in_forget, peephole.unbind(1), strict=False)
    ]
    g, f = torch.tanh(g), in_forget[-1]
    i = in_forget[0] if cell == "lstm" else 1 - f
    new_c = f * old_c + i * g
    o = o + peephole[:, -1] * (new_c.clamp(-cell_clip, cell_clip) if cell_clip else new_c)
    return torch.stack([*in_forget, g, torch.sigmoid(o)], 3)
