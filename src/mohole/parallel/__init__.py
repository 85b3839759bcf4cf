"""Several processes as one: the axes of a mesh, and what their ranks do together."""

from mohole.parallel.mesh import ALONE, Axis, Mesh, joined, total_of

__all__ = ["ALONE", "Axis", "Mesh", "joined", "total_of"]
