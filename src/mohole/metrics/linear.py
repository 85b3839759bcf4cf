"""A linear map fitted on some rows and judged on others: sums of products, one solve, held-out squared errors. Mergeable."""

import torch
from jaxtyping import Float
from torch import Tensor

_RIDGE = (
    1e-4  # of each predictor's own variance: enough for columns that repeat each other, too little to be seen in R^2
)


class LinearFit:
    """The least-squares map from rows [d] to targets [t], with an offset. Rows may come in any batches."""

    def __init__(self, width: int, n_targets: int) -> None:
        self.n = 0
        self._x = torch.zeros(width, dtype=torch.float64)
        self._y = torch.zeros(n_targets, dtype=torch.float64)
        self._xx = torch.zeros(width, width, dtype=torch.float64)
        self._xy = torch.zeros(width, n_targets, dtype=torch.float64)
        self._solved: tuple[Tensor, Tensor] | None = None

    def add(self, rows: Float[Tensor, "row d"], targets: Float[Tensor, "row t"]) -> None:
        """Add rows to fit on."""
        x, y = rows.double(), targets.double()
        self.n += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._solved = None

    @property
    def mean_target(self) -> Float[Tensor, " t"]:
        """What is predicted where nothing is known: the baseline of R^2."""
        return self._y / self.n

    def predict(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row t"]:
        """The fitted targets, float64."""
        weights, offset = self._solution()
        return rows.double() @ weights + offset

    def _solution(self) -> tuple[Tensor, Tensor]:
        if self._solved is None:
            mean = self._x / self.n
            covariance = self._xx / self.n - torch.outer(mean, mean)
            spread = covariance.diagonal().clamp(min=0).sqrt()
            spread = torch.where(spread > 0, spread, torch.ones_like(spread))
            scaled = covariance / torch.outer(spread, spread)
            scaled += _RIDGE * torch.eye(len(spread), dtype=torch.float64)
            product = (self._xy / self.n - torch.outer(mean, self.mean_target)) / spread[:, None]
            weights = torch.linalg.solve(scaled, product) / spread[:, None]
            self._solved = weights, self.mean_target - mean @ weights
        return self._solved
