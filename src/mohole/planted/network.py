"""A small Llama written out for training: same parameters and names as the Hugging Face one, less overhead on a CPU.

Rows hold several documents; a document sees itself only (mask), so a row is the same as each document run alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

from mohole.planted.tokenizer import BOS_ID, EOS_ID


@dataclass(frozen=True, slots=True)
class Shape:
    vocab_size: int
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    d_mlp: int = 344
    context: int = 128
    rope_theta: float = 10_000.0


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        d = shape.d_model
        self.input_norm = nn.Parameter(torch.ones(d))
        self.qkv = nn.Parameter(torch.empty(3, d, d))
        self.out = nn.Parameter(torch.empty(d, d))
        self.mlp_norm = nn.Parameter(torch.ones(d))
        self.gate_up = nn.Parameter(torch.empty(2, shape.d_mlp, d))
        self.down = nn.Parameter(torch.empty(d, shape.d_mlp))

    def forward(self, x: Tensor, mask: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, position, d = x.shape
        normed = rms_norm(x, (d,), self.input_norm, 1e-6)
        q, k, v = (
            linear(normed, self.qkv.flatten(0, 1)).view(batch, position, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        )
        read = scaled_dot_product_attention(rotate(q, cosine, sine), rotate(k, cosine, sine), v, attn_mask=mask)
        x = x + linear(read.transpose(1, 2).reshape(batch, position, d), self.out)
        normed = rms_norm(x, (d,), self.mlp_norm, 1e-6)
        gate, up = linear(normed, self.gate_up.flatten(0, 1)).chunk(2, dim=-1)
        return x + linear(silu(gate) * up, self.down)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions, the halves convention of Llama."""
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-high, low], dim=-1) * sine


class Network(nn.Module):
    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Parameter(torch.empty(shape.vocab_size, shape.d_model))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = nn.Parameter(torch.ones(shape.d_model))
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                std = 0.02 if name == "embed" else parameter.shape[-1] ** -0.5
                std *= 0.25 if name.endswith(("out", "down")) else 1.0
                nn.init.normal_(parameter, std=std, generator=generator)
        d_head = shape.d_model // shape.n_heads
        frequency = shape.rope_theta ** (-torch.arange(0, d_head, 2) / d_head)
        angle = torch.outer(torch.arange(shape.context), frequency).repeat(1, 2)
        self.cosine, self.sine = angle.cos(), angle.sin()

    def forward(
        self, tokens: Int[Tensor, "row position"], same: Bool[Tensor, "row 1 position position"]
    ) -> Float[Tensor, "row position d"]:
        """The last residual, normed. `same` says which pairs of positions are of one document, the later one first."""
        x = embedding(tokens, self.embed)
        mask = torch.zeros(same.shape).masked_fill_(~same, -torch.inf)
        for block in self.blocks:
            x = block(x, mask, self.cosine, self.sine)
        return rms_norm(x, (x.shape[-1],), self.norm, 1e-6)


def save_network(network: Network, embed: Float[Tensor, "piece d"], folder: Path) -> None:
    """config.json and model.safetensors (half precision), as Hugging Face names and shapes them."""
    shape = network.shape
    tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": network.norm}
    for i, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        at = f"model.layers.{i}."
        tensors |= {f"{at}self_attn.{name}_proj.weight": block.qkv[j] for j, name in enumerate("qkv")}
        tensors |= {
            f"{at}self_attn.o_proj.weight": block.out,
            f"{at}mlp.gate_proj.weight": block.gate_up[0],
            f"{at}mlp.up_proj.weight": block.gate_up[1],
            f"{at}mlp.down_proj.weight": block.down,
            f"{at}input_layernorm.weight": block.input_norm,
            f"{at}post_attention_layernorm.weight": block.mlp_norm,
        }
    halves = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(embed),
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_mlp,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_heads,
        "head_dim": shape.d_model // shape.n_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-6,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
