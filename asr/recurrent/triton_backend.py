"""Run recurrent layers on a GPU: large matrix products by torch, the recurrence by triton_kernels.py.

A layer's forward pass is one product for the input's share of both directions' gates, then the recurrence. Its
backward pass is the recurrence back in time, then one product for each weight gradient over all frames at once.
Nothing waits for the device: lengths are read there. Sums have a fixed order, without atomics.

Saved for the gradients, in numbers per frame, direction and hidden unit: the activated gates (4 for an LSTM) and the
cell state (1), beside the output; `settings.recompute_gates` saves the cell state alone and computes the gates again
by two large products.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from asr.errors import BackendError
from asr.recurrent import triton_kernels as kernels
from asr.recurrent.cells import CELLS, CellOptions, Noise, State, Weights, fused_step
from asr.recurrent.triton_launch import Tiling, choose_tiling, launch, settings

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def refusal(
    cell_name: str, options: CellOptions, x: Tensor, weights: list[Weights], noise: list[Noise]
) -> str | None:
    """Say why the kernels cannot run this, None if they can."""
    if x.dtype not in DTYPES and not torch.is_autocast_enabled(x.device.type):
        return f"the GPU kernels compute bfloat16, float16 and float32, not {str(x.dtype).removeprefix('torch.')}"
    if (step := fused_step(cell_name, options.reset)) not in kernels.STEPS:
        return f"the GPU kernels lack {step!r}"
    if options.layer_norm:
        return "the GPU kernels have no layer normalization"
    return None


def run(
    cell_name: str,
    options: CellOptions,
    x: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Weights],
    noise: list[Noise],
) -> tuple[Tensor, State]:
    """Run every direction of one layer; shapes as in `reference.run`. Raises BackendError by name of what it lacks."""
    reason = refusal(cell_name, options, x, weights, noise)
    if reason is not None:
        raise BackendError(f"backend 'fused' cannot run this layer: {reason}; use 'auto' or 'reference'")
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

    def stack(parts: list[Tensor | None]) -> Tensor | None:
        present = [part.to(dtype) for part in parts if part is not None]
        return torch.stack(present) if present else None

    def zoneout(parts: list[Tensor | float]) -> tuple[Tensor | None, float]:
        drawn = [part for part in parts if isinstance(part, Tensor)]
        return (torch.stack(drawn), -1.0) if drawn else (None, float(parts[0]))

    parameters = {name: stack([getattr(w, name) for w in weights]) for name in Weights._fields[:6]}
    zoneout_h, share_h = zoneout([n.zoneout_hidden for n in noise])
    zoneout_c, share_c = zoneout([n.zoneout_cell for n in noise])
    needs_grad = torch.is_grad_enabled() and any(
        t.requires_grad for t in (x, *state, *parameters.values()) if t is not None
    )
    save = ("cell" if settings.recompute_gates else "gates") if needs_grad else "nothing"
    y, h, c, *_ = recurrence(
        x.to(dtype),
        lengths.to(x.device).clamp(0, x.shape[1]),  # to look whether they fit would wait for the device
        state[0].to(dtype),
        state[1].to(dtype) if len(state) > 1 else None,
        *parameters.values(),
        stack([n.recurrent for n in noise]),
        zoneout_h,
        zoneout_c,
        fused_step(cell_name, options.reset),
        share_h,
        share_c,
        options.cell_clip,
        options.proj_clip,
        save,
    )
    return y, ((h, c) if CELLS[cell_name].lstm_family else (h,))


# The operators ---------------------------------------------------------------------------------------------------
# D directions, B batch, T frames, G gates, H hidden, P output, I input.


@torch.library.custom_op("asr::recurrence", mutates_args=())
def recurrence(
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    peephole: Tensor | None,
    mask: Tensor | None,
    zoneout_h: Tensor | None,
    zoneout_c: Tensor | None,
    cell: str,
    share_h: float,
    share_c: float,
    cell_clip: float,
    proj_clip: float,
    save: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One layer: y (B, T, D*P), h (D, B, P), c (D, B, H); and saved gates, kept, unclipped of `Forward`.

    x (B, T, I), lengths (B,), weights stacked over the directions: weight_ih (D, G*H, I) and so on. share_h and
    share_c as SHARE_H and SHARE_C of `Config`. save: "gates", "cell" or "nothing". What is absent has no elements.
    """
    cfg, tiling = _configure(
        x, weight_hh, bias_hh, weight_hr, peephole, mask, cell, share_h, share_c, cell_clip, proj_clip, save
    )
    batch, frames, lstm = x.shape[0], x.shape[1], c0 is not None
    D, G, H, P = cfg.D, cfg.G, cfg.H, cfg.P
    gates = _input_gates(x, weight_ih, bias_ih).view(batch, frames, D, G, H)
    y = x.new_zeros(batch, frames, D, P)
    h = _running(h0)
    c = None if c0 is None else _running(c0)
    source = torch.stack([h0 if mask is None else h0 * mask, torch.empty_like(h0)])
    kept = x.new_empty(batch, frames, D, H) if cfg.SAVE and (lstm or cell == "gru_after") else None
    unclipped = x.new_empty(batch, frames, D, P, dtype=torch.uint8) if cfg.SAVE and proj_clip else None
    two_phases = weight_hr is not None or cell == "gru_before"
    if batch and frames:
        sorted_lengths, order = _sort(lengths)
        pointers = kernels.Forward(
            lengths=sorted_lengths,
            order=order,
            B=batch,
            T=frames,
            gates=gates,
            weight_hh=weight_hh.contiguous(),
            bias_hh=_contiguous(bias_hh),
            weight_hr=_contiguous(weight_hr),
            peephole=_contiguous(peephole),
            mask=_contiguous(mask),
            zoneout_h=_contiguous(zoneout_h),
            zoneout_c=_contiguous(zoneout_c),
            y=y,
            h=h,
            c=c,
            source=source,
            middle=x.new_empty(D, batch, H) if two_phases else None,
            kept=kept,
            unclipped=unclipped,
        )
        launch(kernels.forward_kernel, pointers, cfg, tiling, {1: H, 2: P} if two_phases else {1: H})
    nothing = x.new_empty(0)
    return (
        y.view(batch, frames, D * P),
        h.to(x.dtype, copy=True),
        nothing if c is None else c.to(x.dtype, copy=True),
        gates if save == "gates" else x.new_empty(0),
        x.new_empty(0) if kept is None else kept,
        x.new_empty(0, dtype=torch.uint8) if unclipped is None else unclipped,
    )


@recurrence.register_fake
def _(x, lengths, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole, mask, zoneout_h,
      zoneout_c, cell, share_h, share_c, cell_clip, proj_clip, save):  # fmt: skip
    (batch, frames, _), (D, _, P) = x.shape, h0.shape
    H = weight_hr.shape[2] if weight_hr is not None else P
    G = weight_hh.shape[1] // H
    keeps = save != "nothing" and (c0 is not None or cell == "gru_after")
    return (
        x.new_empty(batch, frames, D * P),
        h0.new_empty(h0.shape),
        x.new_empty(0) if c0 is None else c0.new_empty(c0.shape),
        x.new_empty(batch, frames, D, G, H) if save == "gates" else x.new_empty(0),
        x.new_empty(batch, frames, D, H) if keeps else x.new_empty(0),
        x.new_empty((batch, frames, D, P) if save != "nothing" and proj_clip else 0, dtype=torch.uint8),
    )


@torch.library.custom_op("asr::recurrence_backward", mutates_args=())
def recurrence_backward(
    dy: Tensor,
    dh: Tensor | None,
    dc: Tensor | None,
    y: Tensor,
    gates: Tensor,
    kept: Tensor,
    unclipped: Tensor,
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    peephole: Tensor | None,
    mask: Tensor | None,
    zoneout_h: Tensor | None,
    zoneout_c: Tensor | None,
    cell: str,
    share_h: float,
    share_c: float,
    cell_clip: float,
    proj_clip: float,
    save: str,
    needs_dx: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `recurrence`: dx, dh0, dc0, then those of its six weights; without elements where absent."""
    cfg, tiling = _configure(
        x, weight_hh, bias_hh, weight_hr, peephole, mask, cell, share_h, share_c, cell_clip, proj_clip, save
    )
    batch, frames, D, G, H, P = *x.shape[:2], cfg.D, cfg.G, cfg.H, cfg.P
    y = y.view(batch, frames, D, P)
    h_in = _previous(h0, y, lengths)  # what the recurrent product multiplied
    if mask is not None:
        h_in *= mask.transpose(0, 1).unsqueeze(1)
    if save == "cell":
        gates = _activations(
            x, weight_ih, bias_ih, weight_hh, bias_hh, peephole, h_in, kept, c0, lengths, cell, cell_clip
        )
    dgates = x.new_zeros(batch, frames, D, G, H)
    dgates_hh = torch.zeros_like(dgates) if cell == "gru_after" else dgates
    projected = weight_hr is not None
    dprojected = x.new_zeros(batch, frames, D, P) if projected else None
    middle = x.new_zeros(batch, frames, D, H) if projected else None
    carried_h = _running(torch.zeros_like(h0) if dh is None else dh)
    carried_c = None
    if c0 is not None:
        carried_c = _running(torch.zeros_like(c0) if dc is None else dc)
    dpeephole = None
    if peephole is not None:
        dpeephole = x.new_zeros(D, batch, peephole.shape[1], H, dtype=torch.float32)

    # The kernels read weights along the summed axis.
    weight_step, weight_phase_1 = weight_hh, weight_hr
    if cell == "gru_before":
        weight_step, weight_phase_1 = weight_hh[:, : 2 * H], weight_hh[:, 2 * H :]
    if batch and frames:
        sorted_lengths, order = _sort(lengths)
        pointers = kernels.Backward(
            lengths=sorted_lengths,
            order=order,
            B=batch,
            T=frames,
            gates=gates,
            kept=kept if kept.numel() else None,
            unclipped=unclipped if unclipped.numel() else None,
            h0=h0.contiguous(),
            c0=_contiguous(c0),
            y=y,
            weight_hh=weight_step.transpose(1, 2).contiguous(),
            weight_hr=None if weight_phase_1 is None else weight_phase_1.transpose(1, 2).contiguous(),
            peephole=_contiguous(peephole),
            mask=_contiguous(mask),
            zoneout_h=_contiguous(zoneout_h),
            zoneout_c=_contiguous(zoneout_c),
            dy=dy.contiguous(),
            dh=carried_h,
            dc=carried_c,
            dgates=dgates,
            dgates_hh=dgates_hh,
            dprojected=dprojected,
            middle=middle,
            partial=dy.new_empty(cfg.SPLIT, D, batch, P, dtype=torch.float32) if cfg.SPLIT > 1 else None,
            dpeephole=dpeephole,
        )
        phases = {4: P} if cfg.SPLIT > 1 else {}
        phases |= {1: P} if weight_phase_1 is None else {1: P, 2: H}
        launch(kernels.backward_kernel, pointers, cfg, tiling, phases)

    # What the first step passes to the initial state.
    own = (lengths > 0)[None, :, None]
    first = dgates_hh.new_zeros(D, batch, G * H)
    if frames:
        rows = torch.arange(batch, device=x.device)
        first[0] = dgates_hh[:, 0, 0].flatten(1)
        if D == 2:
            first[1] = dgates_hh[rows, (lengths - 1).clamp(min=0), 1].flatten(1)
    dh0 = (first[..., : weight_step.shape[1]] @ weight_step).float()
    if mask is not None:
        dh0 *= mask
    if share_h or cell.startswith("gru"):
        dh0 += carried_h
    dh0 = torch.where(own, dh0, carried_h).to(x.dtype)

    # One product for each weight, over all frames at once.
    flat = dgates.view(batch * frames, D * G * H)
    padding = torch.arange(frames, device=x.device) >= lengths[:, None]
    inputs = x.masked_fill(padding[..., None], 0)  # whatever it holds there, zeros times it must be zeros
    dweight_ih = (flat.t() @ inputs.flatten(0, 1)).view_as(weight_ih)
    dweight_hh = _weight_gradient(dgates_hh, h_in)
    if cell == "gru_before":
        reset_h = (gates[:, :, :, 0] * h_in).masked_fill(padding[:, :, None, None], 0)
        dweight_hh[:, 2 * H :] = _weight_gradient(dgates[:, :, :, 2], reset_h)
    dbias = flat.sum(0).view(D, G * H) if bias_ih is not None or bias_hh is not None else None
    dbias_hh = dbias
    if cell == "gru_after" and bias_hh is not None:
        dbias_hh = dgates_hh.sum((0, 1)).view(D, G * H)
    nothing = x.new_empty

    return (
        (flat @ weight_ih.flatten(0, 1)).view_as(x) if needs_dx else nothing(0),
        dh0,
        nothing(0) if carried_c is None else carried_c.to(x.dtype, copy=True),
        dweight_ih,
        dweight_hh,
        nothing(0) if bias_ih is None or dbias is None else dbias.clone(),
        nothing(0) if bias_hh is None or dbias_hh is None else dbias_hh.clone(),
        nothing(0) if dprojected is None or middle is None else _weight_gradient(dprojected, middle),
        nothing(0) if dpeephole is None else dpeephole.sum(1).to(x.dtype),
    )


@recurrence_backward.register_fake
def _(dy, dh, dc, y, gates, kept, unclipped, x, lengths, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh,
      weight_hr, peephole, mask, zoneout_h, zoneout_c, cell, share_h, share_c, cell_clip, proj_clip, save,
      needs_dx):  # fmt: skip
    return tuple(
        x.new_empty(0) if like is None else x.new_empty(like.shape)
        for like in (
            x if needs_dx else None,
            h0,
            c0,
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
            weight_hr,
            peephole,
        )
    )


def _save_for_backward(ctx, inputs, output):
    y, _, _, gates, kept, unclipped = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y, gates, kept, unclipped, *inputs[:13])
    ctx.options = inputs[13:]


def _backward(ctx, dy, dh, dc, *_):
    y, gates, kept, unclipped, *inputs = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(y)
    needs_dx = ctx.needs_input_grad[0]
    gradients = recurrence_backward(dy, dh, dc, y, gates, kept, unclipped, *inputs, *ctx.options, needs_dx)
    dx, dh0, dc0, *dweights = (g if g.numel() else None for g in gradients)
    return dx, None, dh0, dc0, *dweights, *[None] * 9


recurrence.register_autograd(_backward, setup_context=_save_for_backward)


def _refuse_double_backward(ctx, *_):
    raise BackendError("backend 'fused' cannot differentiate twice; use backend 'reference'")


recurrence_backward.register_autograd(_refuse_double_backward)


# Their parts -----------------------------------------------------------------------------------------------------


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _running(initial: Tensor) -> Tensor:
    """Copy a state to where the kernels update it: contiguous fp32."""
    return initial.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _sort(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Sort lengths, longest first, and give each row's place in the batch, both int32."""
    values, order = lengths.sort(descending=True, stable=True)
    return values.int(), order.int()


def _input_gates(x: Tensor, weight_ih: Tensor, bias_ih: Tensor | None) -> Tensor:
    """W_ih x + b_ih of both directions: (B, T, D*G*H)."""
    return F.linear(x, weight_ih.flatten(0, 1), None if bias_ih is None else bias_ih.flatten())


def _previous(initial: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Each step's state before it: (D, B, N) and (B, T, D, N) give (B, T, D, N), finite in the padding."""
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


def _weight_gradient(doutput: Tensor, inputs: Tensor) -> Tensor:
    """Sum the outer products over the frames: (B, T, D, ...) of N and of K numbers give (D, N, K)."""
    doutput, inputs = (t.flatten(0, 1).flatten(2) for t in (doutput, inputs))
    return torch.bmm(doutput.permute(1, 2, 0), inputs.transpose(0, 1))


def _activations(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    peephole: Tensor | None,
    h_in: Tensor,
    kept: Tensor,
    c0: Tensor | None,
    lengths: Tensor,
    cell: str,
    cell_clip: float,
) -> Tensor:
    """Compute the activated gates of every frame again: with h known, the recurrent product is one large one."""
    D, P, H = weight_hh.shape[0], weight_hh.shape[2], kept.shape[-1] if kept.numel() else weight_hh.shape[2]
    share_x = _input_gates(x, weight_ih, bias_ih).view(*x.shape[:2], D, -1, H)
    flat_h = h_in.view(-1, D, P).transpose(0, 1)

    def product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = torch.bmm(inputs, weight.transpose(1, 2))
        out = out if bias is None else out + bias[:, None]
        return out.transpose(0, 1).reshape(*x.shape[:2], D, -1, H)

    if cell == "gru_before":
        bias_rz, bias_n = (None, None) if bias_hh is None else (bias_hh[:, : 2 * H], bias_hh[:, 2 * H :])
        rz = torch.sigmoid(share_x[:, :, :, :2] + product(flat_h, weight_hh[:, : 2 * H], bias_rz))
        reset_h = (rz[:, :, :, 0] * h_in).view(-1, D, P).transpose(0, 1)
        n = torch.tanh(share_x[:, :, :, 2:] + product(reset_h, weight_hh[:, 2 * H :], bias_n))
        return torch.cat([rz, n], 3)
    share_h = product(flat_h, weight_hh, bias_hh)
    if cell == "gru_after":
        rz = torch.sigmoid(share_x[:, :, :, :2] + share_h[:, :, :, :2])
        return torch.cat([rz, torch.tanh(share_x[:, :, :, 2:] + rz[:, :, :, :1] * kept.unsqueeze(3))], 3)
    gates = share_x + share_h
    if cell == "rnn_tanh":
        return torch.tanh(gates)
    *in_forget, g, o = gates.unbind(3)
    if peephole is not None and c0 is not None:
        old_c = _previous(c0, kept, lengths)
        in_forget = [gate + old_c * p for gate, p in zip(in_forget, peephole.unbind(1), strict=False)]
    in_forget = [torch.sigmoid(gate) for gate in in_forget]
    g = torch.tanh(g)
    if peephole is not None:
        f = in_forget[-1]
        i = in_forget[0] if cell == "lstm" else 1 - f
        new_c = f * old_c + i * g
        o = o + peephole[:, -1] * (new_c.clamp(-cell_clip, cell_clip) if cell_clip else new_c)
    return torch.stack([*in_forget, g, torch.sigmoid(o)], 3)


def _configure(
    x: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    peephole: Tensor | None,
    mask: Tensor | None,
    cell: str,
    share_h: float,
    share_c: float,
    cell_clip: float,
    proj_clip: float,
    save: str,
) -> tuple[kernels.Config, Tiling]:
    directions, _, output = weight_hh.shape
    hidden = output if weight_hr is None else weight_hr.shape[2]
    gates = weight_hh.shape[1] // hidden
    tiling = choose_tiling(x, directions, output, 2 if cell == "gru_before" else gates)
    config = kernels.Config(
        CELL=cell,
        D=directions,
        G=gates,
        H=hidden,
        P=output,
        PEEPHOLE=peephole is not None,
        PROJECTION=weight_hr is not None,
        BIAS=bias_hh is not None,
        MASK=mask is not None,
        SHARE_H=share_h,
        SHARE_C=share_c,
        CELL_CLIP=cell_clip,
        PROJ_CLIP=proj_clip,
        SAVE=save != "nothing",
        ROWS=tiling.rows,
        UNITS=tiling.units,
        DEPTH=tiling.depth,
        SPLIT=tiling.split,
        SPLIT_UNITS=tiling.split_units,
        PRECISION="ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        INTERPRET=x.device.type == "cpu",
    )
    return config, tiling
