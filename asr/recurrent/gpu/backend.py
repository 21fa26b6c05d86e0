"""Run recurrent layers on a GPU: large matrix products by torch, the recurrence by kernels.py.

A layer's forward pass is one product for the input's share of both directions' gates, then the recurrence. Its
backward pass is the recurrence back in time, then one product for each weight gradient over all frames at once.
Nothing waits for the device: lengths are read there. Sums have a fixed order, without atomics.

Saved for the gradients, in numbers per frame, direction and hidden unit: the activated gates (4 for an LSTM) and the
cell state (1), beside the output; `settings.recompute_gates` saves the cell state alone and computes the gates again
by two large products.

D directions, B batch, T frames, G gates, H hidden, P output, I input.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from asr.recurrent.cells import CELLS, Call, State, Weights
from asr.recurrent.gpu import products
from asr.recurrent.gpu.cells import STEPS
from asr.recurrent.gpu.kernels import backward_kernel, forward_kernel
from asr.recurrent.gpu.launch import Tiling, choose_tiling, launch, settings
from asr.recurrent.gpu.primitives import Backward, Config, Forward
from asr.recurrent.operators import (
    Arguments,
    backward_operator,
    differentiate,
    final_state,
    names,
    numbers,
    operator,
)

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def refusal(call: Call) -> str | None:
    """Return why the kernels cannot run this layer, None if they can."""
    dtype = call.x.dtype
    if dtype not in DTYPES and not torch.is_autocast_enabled(call.x.device.type):
        return (
            f"the GPU kernels compute bfloat16, float16 and float32, not {str(dtype).removeprefix('torch.')}"
        )
    if (step := CELLS[call.cell].fused_step(call.options)) not in STEPS:
        return f"the GPU kernels lack {step!r}"
    if call.options.layer_norm:
        return "the GPU kernels have no layer normalization"
    return None


def run(call: Call) -> tuple[Tensor, State]:
    """Run every direction of one layer; shapes as in `reference.run`."""
    y, h, c, *_ = recurrence(*_flatten(call))
    return y, final_state(call, h, c)


def _flatten(call: Call) -> Arguments:
    """Return the call as the operator takes it: one precision, weights and masks stacked over the directions."""
    x, device = call.x, call.x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    weight_names, noise_names = names(call)
    weights = [torch.stack([getattr(w, name).to(dtype) for w in call.weights]) for name in weight_names]
    noise = [torch.stack([getattr(n, name) for n in call.noise]) for name in noise_names]
    if noise_names[:1] == ["recurrent"]:  # zoneout's masks hold zeros and ones, which any precision has
        noise[0] = noise[0].to(dtype)
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *call.state, *weights))
    return Arguments(
        x.to(dtype),
        call.lengths.to(x.device).clamp(0, x.shape[1]),  # to look whether they fit would wait for the device
        [part.to(dtype) for part in call.state],
        weights,
        noise,
        CELLS[call.cell].fused_step(call.options),
        ",".join(weight_names),
        ",".join(noise_names),
        [call.options.hidden_size, call.options.output_size],
        numbers(call),
        ("cell" if settings.recompute_gates else "gates") if needs_grad else "nothing",  # what is saved
    )


class Masks(NamedTuple):
    """The masks of Noise, stacked over the directions; None where none were drawn."""

    recurrent: Tensor | None = None  # (D, B, P)
    zoneout_hidden: Tensor | None = None  # (D, B, T, P)
    zoneout_cell: Tensor | None = None  # (D, B, T, H)


class Saved(NamedTuple):
    """What the forward operator leaves for its gradient beside y; without elements where there is no such thing."""

    gates: Tensor  # (B, T, D, G, H) activated
    kept: Tensor  # (B, T, D, H), as in `primitives.Forward`
    unclipped: Tensor  # (B, T, D, P), as there


class Layer:
    """An operator's arguments by their names, and how its kernels are compiled and cut."""

    def __init__(self, arguments: Arguments):
        self.x, self.lengths, self.step, self.save = (
            arguments.x,
            arguments.lengths,
            arguments.step,
            arguments.mode,
        )
        self.weights = Weights(**dict(zip(arguments.weight_names.split(","), arguments.weights, strict=True)))
        noise_names = [name for name in arguments.noise_names.split(",") if name]
        self.masks = Masks(**dict(zip(noise_names, arguments.noise, strict=True)))
        self.h0, *c0 = arguments.state
        self.c0 = c0[0] if c0 else None
        self.batch, self.frames = self.x.shape[:2]
        self.cell_clip, self.proj_clip, *self.rates = arguments.numbers
        self.cfg, self.tiling = self._configure(*arguments.sizes)

    def _configure(self, hidden: int, output: int) -> tuple[Config, Tiling]:
        w, masks = self.weights, self.masks
        directions, rows, _ = w.weight_hh.shape
        gates = rows // hidden
        tiling = choose_tiling(self.x, directions, output, 2 if self.step == "gru_before" else gates)
        config = Config(
            CELL=self.step,
            D=directions,
            G=gates,
            H=hidden,
            P=output,
            PEEPHOLE=w.weight_peephole is not None,
            PROJECTION=w.weight_hr is not None,
            BIAS=w.bias_hh is not None,
            MASK=masks.recurrent is not None,
            SHARE_H=self.rates[0] if masks.zoneout_hidden is None else -1.0,
            SHARE_C=self.rates[1] if masks.zoneout_cell is None else -1.0,
            CELL_CLIP=self.cell_clip,
            PROJ_CLIP=self.proj_clip,
            SAVE=self.save != "nothing",
            ROWS=tiling.rows,
            UNITS=tiling.units,
            DEPTH=tiling.depth,
            SPLIT=tiling.split,
            SPLIT_UNITS=tiling.split_units,
            PRECISION="ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
            INTERPRET=self.x.device.type == "cpu",
        )
        return config, tiling


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


@operator("recurrence", outputs=len(Saved._fields))
def recurrence(*values) -> tuple[Tensor, ...]:
    """Run one layer: y (B, T, D*P), h (D, B, P), c (D, B, H), then `Saved`; without elements where absent."""
    layer = Layer(Arguments(*values))
    x, w, masks, cfg = layer.x, layer.weights, layer.masks, layer.cfg
    batch, frames, D, G, H, P = layer.batch, layer.frames, cfg.D, cfg.G, cfg.H, cfg.P
    gates = products.input_gates(x, w).view(batch, frames, D, G, H)
    y = x.new_zeros(batch, frames, D, P)
    h = products.running(layer.h0)
    c = None if layer.c0 is None else products.running(layer.c0)
    masked = layer.h0 if masks.recurrent is None else layer.h0 * masks.recurrent
    keeps = cfg.SAVE and (c is not None or layer.step == "gru_after")
    kept = x.new_empty(batch, frames, D, H) if keeps else None
    clips = cfg.SAVE and layer.proj_clip
    unclipped = x.new_empty(batch, frames, D, P, dtype=torch.uint8) if clips else None
    two_phases = cfg.PROJECTION or layer.step == "gru_before"
    if batch and frames:
        sorted_lengths, order = products.sort(layer.lengths)
        pointers = Forward(
            lengths=sorted_lengths,
            order=order,
            B=batch,
            T=frames,
            gates=gates,
            weight_hh=w.weight_hh.contiguous(),
            bias_hh=_contiguous(w.bias_hh),
            weight_hr=_contiguous(w.weight_hr),
            peephole=_contiguous(w.weight_peephole),
            mask=_contiguous(masks.recurrent),
            zoneout_h=_contiguous(masks.zoneout_hidden),
            zoneout_c=_contiguous(masks.zoneout_cell),
            y=y,
            h=h,
            c=c,
            source=torch.stack([masked, torch.empty_like(layer.h0)]),
            middle=x.new_empty(D, batch, H) if two_phases else None,
            kept=kept,
            unclipped=unclipped,
        )
        launch(forward_kernel, pointers, cfg, layer.tiling, {1: H, 2: P} if two_phases else {1: H})
    return (
        y.view(batch, frames, D * P),
        h.to(x.dtype, copy=True),
        x.new_empty(0) if c is None else c.to(x.dtype, copy=True),
        gates if layer.save == "gates" else x.new_empty(0),
        x.new_empty(0) if kept is None else kept,
        x.new_empty(0, dtype=torch.uint8) if unclipped is None else unclipped,
    )


@recurrence.register_fake
def _(*values):
    arguments = Arguments(*values)
    x, (h, *c), (H, P) = arguments.x, arguments.state, arguments.sizes
    (batch, frames, _), D = x.shape, h.shape[0]
    saves = arguments.mode != "nothing"
    G = arguments.weights[arguments.weight_names.split(",").index("weight_hh")].shape[1] // H
    keeps = saves and (c or arguments.step == "gru_after")
    return (
        x.new_empty(batch, frames, D * P),
        h.new_empty(h.shape),
        c[0].new_empty(c[0].shape) if c else x.new_empty(0),
        x.new_empty((batch, frames, D, G, H) if arguments.mode == "gates" else 0),
        x.new_empty((batch, frames, D, H) if keeps else 0),
        x.new_empty((batch, frames, D, P) if saves and arguments.numbers[1] else 0, dtype=torch.uint8),
    )


class Gradients(NamedTuple):
    """What the backward kernels leave: Backward's tensors of these names."""

    dgates: Tensor
    dgates_hh: Tensor
    dh: Tensor  # of h before the first step, but for what its gates pass on
    dc: Tensor | None
    dprojected: Tensor | None
    middle: Tensor | None
    dpeephole: Tensor | None

    def flat_gates(self) -> Tensor:
        """Return dgates as (B*T, D*G*H)."""
        batch, frames, *rest = self.dgates.shape
        return self.dgates.view(batch * frames, math.prod(rest))


@backward_operator("recurrence_backward")
def recurrence_backward(d_y, d_state, needs_d_x, y, saved, *values) -> list[Tensor]:
    """Return the gradients of x, of each state and of each weight; see `backward_operator`."""
    arguments = Arguments(*values)
    layer, left = Layer(arguments), Saved(*saved)
    x, w = layer.x, layer.weights
    y = y.view(layer.batch, layer.frames, layer.cfg.D, layer.cfg.P)
    h_in = products.previous(layer.h0, y, layer.lengths)  # what the recurrent product multiplied
    if layer.masks.recurrent is not None:
        h_in *= layer.masks.recurrent.transpose(0, 1).unsqueeze(1)
    if layer.save == "cell":
        old_c = None
        if w.weight_peephole is not None and layer.c0 is not None:
            old_c = products.previous(layer.c0, left.kept, layer.lengths)
        gates = products.activations(x, w, h_in, old_c, left.kept, layer.step, layer.cell_clip)
        left = left._replace(gates=gates)
    found = _back_in_time(layer, left, y, d_y, d_state)
    weights = _weight_gradients(layer, left, found, h_in)
    d_x = x.new_empty(0)
    if needs_d_x:
        d_x = (found.flat_gates() @ w.weight_ih.flatten(0, 1)).view_as(x)
    d_c0 = [] if found.dc is None else [found.dc.to(x.dtype, copy=True)]
    d_weights = [weights[name] for name in arguments.weight_names.split(",")]
    return [d_x, _first_state_gradient(layer, found), *d_c0, *d_weights]


def _back_in_time(layer: Layer, left: Saved, y: Tensor, d_y: Tensor, d_state: list[Tensor]) -> Gradients:
    """Run the recurrence back in time."""
    x, w, masks, cfg = layer.x, layer.weights, layer.masks, layer.cfg
    batch, frames, D, G, H, P = layer.batch, layer.frames, cfg.D, cfg.G, cfg.H, cfg.P
    dgates = x.new_zeros(batch, frames, D, G, H)
    peephole = w.weight_peephole
    found = Gradients(
        dgates,
        torch.zeros_like(dgates) if layer.step == "gru_after" else dgates,
        products.running(d_state[0]),
        None if layer.c0 is None else products.running(d_state[1]),
        x.new_zeros(batch, frames, D, P) if cfg.PROJECTION else None,
        x.new_zeros(batch, frames, D, H) if cfg.PROJECTION else None,
        None if peephole is None else x.new_zeros(D, batch, *peephole.shape[1:], dtype=torch.float32),
    )
    if not batch or not frames:
        return found
    weight_step, weight_phase_1 = _backward_weights(layer)
    sorted_lengths, order = products.sort(layer.lengths)
    pointers = Backward(
        lengths=sorted_lengths,
        order=order,
        B=batch,
        T=frames,
        gates=left.gates,
        kept=left.kept if left.kept.numel() else None,
        unclipped=left.unclipped if left.unclipped.numel() else None,
        h0=layer.h0.contiguous(),
        c0=_contiguous(layer.c0),
        y=y,
        # The kernels read weights along the summed axis.
        weight_hh=weight_step.transpose(1, 2).contiguous(),
        weight_hr=None if weight_phase_1 is None else weight_phase_1.transpose(1, 2).contiguous(),
        peephole=_contiguous(peephole),
        mask=_contiguous(masks.recurrent),
        zoneout_h=_contiguous(masks.zoneout_hidden),
        zoneout_c=_contiguous(masks.zoneout_cell),
        dy=d_y.contiguous(),
        partial=d_y.new_empty(cfg.SPLIT, D, batch, P, dtype=torch.float32) if cfg.SPLIT > 1 else None,
        **found._asdict(),
    )
    phases = {4: P} if cfg.SPLIT > 1 else {}
    phases |= {1: P} if weight_phase_1 is None else {1: P, 2: H}
    launch(backward_kernel, pointers, cfg, layer.tiling, phases)
    return found


def _backward_weights(layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Return the weights that carry the gates' gradients to h(t-1), and those of a step's other phase."""
    if layer.step == "gru_before":
        weight_rz, weight_n = layer.weights.weight_hh.split([2 * layer.cfg.H, layer.cfg.H], 1)
        return weight_rz, weight_n
    return layer.weights.weight_hh, layer.weights.weight_hr


def _first_state_gradient(layer: Layer, found: Gradients) -> Tensor:
    """Return the gradient of h0: what the first step passes on, or the last gradient where there is no step."""
    weight_step, _ = _backward_weights(layer)
    first = products.first_steps(found.dgates_hh, layer.lengths)
    dh0 = (first[..., : weight_step.shape[1]] @ weight_step).float()
    if layer.masks.recurrent is not None:
        dh0 *= layer.masks.recurrent
    if layer.cfg.SHARE_H or layer.step.startswith("gru"):
        dh0 += found.dh
    return torch.where((layer.lengths > 0)[None, :, None], dh0, found.dh).to(layer.x.dtype)


def _weight_gradients(layer: Layer, left: Saved, found: Gradients, h_in: Tensor) -> dict[str, Tensor]:
    """Return each weight's gradient by its name: one product over all frames at once."""
    x, cfg = layer.x, layer.cfg
    flat = found.flat_gates()
    padding = torch.arange(layer.frames, device=x.device) >= layer.lengths[:, None]
    inputs = x.masked_fill(padding[..., None], 0)  # whatever it holds there, zeros times it must be zeros
    weight_hh = products.weight_gradient(found.dgates_hh, h_in)
    if layer.step == "gru_before":
        reset_h = (left.gates[:, :, :, 0] * h_in).masked_fill(padding[:, :, None, None], 0)
        weight_hh[:, 2 * cfg.H :] = products.weight_gradient(found.dgates[:, :, :, 2], reset_h)
    bias = flat.sum(0).view(cfg.D, cfg.G * cfg.H)
    bias_hh = bias
    if layer.step == "gru_after":
        bias_hh = found.dgates_hh.sum((0, 1)).view(cfg.D, cfg.G * cfg.H)
    gradients = {
        "weight_ih": (flat.t() @ inputs.flatten(0, 1)).view_as(layer.weights.weight_ih),
        "weight_hh": weight_hh,
        "bias_ih": bias.clone(),
        "bias_hh": bias_hh.clone(),
    }
    if found.dprojected is not None and found.middle is not None:
        gradients["weight_hr"] = products.weight_gradient(found.dprojected, found.middle)
    if found.dpeephole is not None:
        gradients["weight_peephole"] = found.dpeephole.sum(1).to(x.dtype)
    return gradients


differentiate(recurrence, recurrence_backward)
