"""The compiled loop of `map`: in the order of numpy's operations, so the same bits. In a file of its own, because numba is
imported where it runs, and nowhere else.

Axes: P points, E edges by their first end, R random others of each point.
"""

from typing import no_type_check

import numba

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the function as it is written, not what a type checker makes of it
def forces(here, one, other, share, random, n_points, closest, force):
    """What pulls and pushes each point, into `force` [2, P]. here [2, P]; one, other, share [E]; random [P, R]."""
    n_edges, edge = len(one), 0
    for point in range(here.shape[1]):
        x, y = here[0, point], here[1, point]
        to_x = to_y = 0.0
        while edge < n_edges and one[edge] == point:
            apart_x, apart_y = x - here[0, other[edge]], y - here[1, other[edge]]
            pull = share[edge] / (1.0 + apart_x * apart_x + apart_y * apart_y)
            to_x += pull * apart_x
            to_y += pull * apart_y
            edge += 1
        for number in range(random.shape[1]):
            away = random[point, number] % n_points
            away_x, away_y = x - here[0, away], y - here[1, away]
            distance = away_x * away_x + away_y * away_y
            push = 1.0 / ((closest + distance) * (1.0 + distance))
            to_x -= push * away_x
            to_y -= push * away_y
        force[0, point], force[1, point] = to_x, to_y
