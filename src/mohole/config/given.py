"""A recipe's [[dictionary]] tables: dictionaries that are there already and are not to be trained."""

from typing import Annotated

from pydantic import Field, model_validator

from mohole.config.tables import Flag, Name, Table
from mohole.config.train import CrosscoderOf, CrossLayerOf, TranscoderOf


class Given(Table):
    """A dictionary of any library, used in place of one that would be trained."""

    path: Name
    """Its folder or file, or a hub id: whatever `mohole.load_dictionary` reads."""
    hookpoint: Name | None = None
    """Where a sparse autoencoder belongs, such as `resid_post.6`."""
    learns: Annotated[TranscoderOf | CrosscoderOf | CrossLayerOf, Field(discriminator="kind")] | None = None
    """Where a dictionary of another kind belongs, said as in `train.learns`. It is the only one of its run."""
    allow_download: Flag = False
    """Fetch from the hub what is not in its local cache."""

    @model_validator(mode="after")
    def _one_place(self) -> "Given":
        if (self.hookpoint is None) == (self.learns is None):
            raise ValueError(
                "hookpoint, learns: give exactly one: an SAE has a hookpoint, other kinds say it as train.learns"
            )
        return self

    def needs(self) -> tuple[str, ...]:
        """The hookpoints whose rows it reads or writes."""
        if self.learns is not None:
            return self.learns.needs()
        assert self.hookpoint is not None  # _one_place
        return (self.hookpoint,)
