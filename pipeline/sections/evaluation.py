"""How the policy of a run is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import names_class
from crosschannel.evaluation import EvaluationSettings, GateRule, TrajectorySettings

RIDGE = "ridge"


@dataclass(frozen=True)
class ProcedureSettings:
    """Whether the learning procedure is valued beside the policy of the run.

    Attributes:
        folds: Folds of users, K. As many agents learn, each from all folds but one, which judges it: a value of the
            learning procedure from all users. None: only the policy of the run is valued, on the test users.
    """

    folds: int | None = None

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise ConfigError(
                f"folds {self.folds} is below 2: each agent needs users to learn from and others to be judged by; "
                "leave it out to value the policy of the run only"
            )


@dataclass(frozen=True)
class EvaluationConfig(EvaluationSettings):
    """How the learned policy is evaluated.

    Attributes:
        market_users: Simulated users to whom each policy is deployed. For histories of a market only.
        max_users: Test users on which a policy is judged, where the log is in buckets: at most so many, chosen by a
            hash of who they are. Half as many of the other users are looked at beside them.
        segments: User attribute by which the policy is explained.
        gate: The rule of the verdict with which an evaluation ends.
        outcome_model: Regressor of the rewards. `ridge`, or one of your own or of scikit-learn, such as
            `sklearn.ensemble:RandomForestRegressor`, with its defaults. It is cross-fitted on the evaluated users.
        trajectories: The episodes of slots over which the policy is valued as one that is followed.
        procedure: Whether the learning procedure is valued by cross-fitting, from all users.
    """

    market_users: int = 4000
    max_users: int = 10_000
    segments: str | None = None
    gate: GateRule = field(default_factory=GateRule)
    outcome_model: str = "ridge"
    trajectories: TrajectorySettings = field(default_factory=TrajectorySettings)
    procedure: ProcedureSettings = field(default_factory=ProcedureSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.market_users < 2:
            raise ConfigError(f"market_users {self.market_users} is below 2: a standard error needs two users")
        if self.max_users < 2:
            raise ConfigError(f"max_users {self.max_users} is below 2: an interval needs several users")
        if self.outcome_model != RIDGE and not names_class(self.outcome_model):
            raise ConfigError(
                f"there is no outcome model {self.outcome_model!r}: use {RIDGE!r}, or a regressor of your own or of "
                "scikit-learn as 'package.module:Class'"
            )

    @property
    def estimation(self) -> EvaluationSettings:
        """Return the settings of the off-policy estimates."""
        return EvaluationSettings(**{f.name: getattr(self, f.name) for f in fields(EvaluationSettings)})
