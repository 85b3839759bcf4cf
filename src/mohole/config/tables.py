"""What a recipe's tables are made of: the frozen base, and the kinds of values with their bounds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(strict=True, gt=0.0, lt=1.0)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**40)]
Listed = Annotated[int, Field(strict=True, ge=1, le=10_000)]
"""How many of something are kept for each latent."""
Whole = Annotated[int, Field(strict=True, ge=0, le=2**40)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(strict=True, ge=0.0, le=1e15, allow_inf_nan=False)]
"""Of a term of a loss: far from where float32 ends."""
Moderate = Annotated[float, Field(strict=True, ge=1e-6, le=1e6)]
"""A length beside activations in training units, which are about one."""
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(strict=True, min_length=1, pattern=r"^[^\x00]*$")]


class Table(BaseModel):
    """A frozen table of a recipe. Unknown keys are errors."""

    # Scalars are strict, so that a string is never taken for a number; tables are not, because TOML has no tuples.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
