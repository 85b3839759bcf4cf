"""What the two sides of a comparison leave for each other: rows, codes, output. Run by the other libraries' interpreter."""

from pathlib import Path
from typing import Any

FILE = "expected.safetensors"


def leave(folder: Path, rows: Any, codes: Any, out: Any) -> None:
    """Write a batch and what one library made of it."""
    from safetensors.torch import save_file

    tensors = {"rows": rows, "codes": codes, "out": out}
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, folder / FILE)


def compare(folder: Path, compute: Any) -> None:
    """Does `compute(rows)` give the codes and the output that were left? Raises: AssertionError: no."""
    import torch
    from safetensors.torch import load_file

    left = load_file(folder / FILE)
    with torch.no_grad():
        codes, out = compute(left["rows"])
    for name, found in (("codes", codes), ("out", out)):
        where = f"{folder.name} {name}: "
        torch.testing.assert_close(found, left[name], rtol=1e-5, atol=1e-5, msg=lambda text, where=where: where + text)
    assert int((left["codes"] != 0).sum()) > 0, f"{folder.name}: no code is active, which proves nothing"


def folders(place: str) -> list[Path]:
    """Each case has its folder."""
    return sorted(path for path in Path(place).iterdir() if path.is_dir())


def fill(module: Any, seed: int) -> Any:
    """Random numbers in every parameter of a module, biases as large as weights: a wrong convention cannot hide."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            scale = 0.2 if "r_mag" in name else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if "threshold" in name:
                parameter.abs_().add_(0.1)
    return module


def some_rows(*shape: int) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(99))
