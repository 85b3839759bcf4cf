"""The whole objective, dense and by autograd, for every variant: what the written-out gradients must be."""

from itertools import pairwise

import torch
from torch import Tensor

from mohole.config import L0, L1, BatchTopK, Gated, JumpReLU, ReLU, Tanh, TopK, Train
from mohole.kernels import reference
from mohole.train.objective import Batch
from mohole.train.weights import Sites, Weights


class Jump(torch.autograd.Function):
    """pre where pre > threshold; the threshold's gradient through a box (Rajamanoharan et al. 2024, equation 11)."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        pre, threshold = ctx.saved_tensors
        box = (((pre - threshold) / ctx.bandwidth).abs() < 0.5).to(pre.dtype)
        return gradient * (pre > threshold), (-threshold / ctx.bandwidth * box * gradient).sum(0), None


class Step(torch.autograd.Function):
    """pre > threshold, as a number; the threshold's gradient through a box (equation 12)."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        pre, threshold = ctx.saved_tensors
        box = (((pre - threshold) / ctx.bandwidth).abs() < 0.5).to(pre.dtype)
        return torch.zeros_like(pre), (-1.0 / ctx.bandwidth * box * gradient).sum(0), None


def loss(  # noqa: C901, PLR0915 - in one piece, to be read beside the formula
    weights: Weights, batch: Batch, settings: Train, sites: Sites, dead: list[Tensor], warmth: float
) -> Tensor:
    """The objective of `mohole.train.objective`, read off its first lines."""
    rows, targets = batch.rows, batch.targets
    read = rows - weights.b_dec if weights.is_tied else rows
    codes, pres, gates = [], [], []
    for block in weights.blocks:
        own = read[:, block.reads]
        pre = own @ block.W_enc.T + block.b_enc
        if settings.products == "bfloat16":  # straight through the rounding
            near, encoder = (each.bfloat16().to(each.dtype) for each in (own, block.W_enc))
            pre = pre + (near @ encoder.T + block.b_enc - pre).detach()
        pres.append(pre)
        match settings.nonlinearity:
            case TopK(k=k):
                codes.append(reference.codes(pre, k))
            case BatchTopK(k=k):
                flat = pre.flatten()
                order = flat.argsort(descending=True, stable=True)[: k * len(rows)]
                keep = torch.zeros_like(flat).scatter(0, order, 1.0)
                codes.append((flat * keep).clamp_min(0.0).view_as(pre))
            case ReLU():
                codes.append(pre.relu())
            case JumpReLU(bandwidth=bandwidth):
                codes.append(Jump.apply(pre, block.log_threshold.exp(), bandwidth))
            case Gated():
                magnitude = (pre - block.b_enc) * block.r_mag.exp() + block.b_mag
                codes.append((pre > 0) * magnitude.relu())
                gates.append(pre.relu())
    base = weights.b_dec + (0.0 if weights.W_skip is None else rows @ weights.W_skip.T)

    def reconstruct(upto: int | None = None) -> Tensor:
        out = base.expand_as(targets).clone()
        for block, code in zip(weights.blocks, codes, strict=True):
            out[:, block.writes] += code[:, :upto] @ block.W_dec[:upto]
        return out

    outputs = [reconstruct(size) for size in (*settings.prefixes, None)]
    total = torch.stack([(output - targets).square().mean() for output in outputs]).mean()
    share = 1.0 / targets.numel()
    for number, block in enumerate(weights.blocks):
        bounds = [
            bound - block.writes.start for bound in sites.bounds if block.writes.start <= bound <= block.writes.stop
        ]
        parts = [block.W_dec[:, low:high].norm(dim=1) for low, high in pairwise(bounds)]
        lengths = torch.stack(parts).sum(0) if settings.decoder == "free" else torch.ones_like(block.b_enc)
        values = gates[number] if gates else codes[number]
        match settings.penalty():
            case L1(weight=weight):
                total = total + warmth * weight * share * (values * lengths).sum()
            case L0(weight=weight):
                steps = Step.apply(pres[number], block.log_threshold.exp(), settings.nonlinearity.bandwidth)
                total = total + warmth * weight * share * steps.sum()
            case Tanh(weight=weight, scale=scale):
                total = total + warmth * weight * share * (scale * values * lengths).tanh().sum()
        if settings.pre_act_weight and len(dead[number]):
            own = dead[number]
            threshold = block.log_threshold[own].exp() if block.log_threshold is not None else 0.0
            below = (threshold - pres[number][:, own]).relu() * lengths[own].detach()
            total = total + settings.pre_act_weight * share * below.sum()
    if gates:
        held = base.detach().expand_as(targets).clone()
        for block, gate in zip(weights.blocks, gates, strict=True):
            held[:, block.writes] += gate @ block.W_dec.detach()
        total = total + (held - targets).square().mean()
    if settings.auxk and any(len(own) for own in dead):
        residual = (targets - outputs[-1]).detach()
        guess, n_rescued = torch.zeros_like(targets), 0
        for block, pre, own in zip(weights.blocks, pres, dead, strict=True):
            if len(own):
                rescue = reference.codes(pre[:, own], min(settings.auxk, len(own)))
                n_rescued += int((rescue > 0).sum())
                guess[:, block.writes] += rescue @ block.W_dec[own]
        spread = (residual - residual.mean(0)).square().sum()
        if n_rescued:  # dead latents that read nothing positive can explain nothing
            total = total + settings.auxk_weight * (guess - residual).square().sum() / spread
    return total


def gradients(
    weights: Weights, batch: Batch, settings: Train, sites: Sites, dead: list[Tensor], warmth: float = 1.0
) -> tuple[float, dict[str, Tensor]]:
    """The loss, and autograd's gradient of every tensor by name; of unit decoder rows without the part along them."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.named()}
    total = loss(weights.of(leaves), batch, settings, sites, dead, warmth)
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    named = dict(zip(leaves, found, strict=True))
    if settings.decoder == "unit":
        for name in named:
            if name.startswith("W_dec"):
                along = (named[name] * leaves[name].detach()).sum(1, keepdim=True)
                named[name] = named[name] - along * leaves[name].detach()
    return float(total.detach()), named
