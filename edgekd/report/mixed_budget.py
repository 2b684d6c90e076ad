"""The budget of mixed engines in the report: the drop on the selection images beside that on the scored split."""

from __future__ import annotations

from pydantic import Field

from edgekd.core.task_metrics import metric_title
from edgekd.report.part import Number, Part
from edgekd.report.units import percent


class MixedBudget(Part):
    """The layers of a mixed engine that stay in float, and the drops of its metric from the deployed student's ONNX graph,
    fractions."""

    metric: str = Field("", description="name of the metric")
    max_drop: Number = Field(None, description="limit of the drop, `quantize.budget.max_drop`")
    images: int = Field(0, description="selection images")
    reference_drop: Number = Field(None, description="drop of the Q/DQ graph on the selection images")
    selection_drop: Number = Field(
        None, description="drop of the engine on the selection images; null for a board that is not here"
    )
    scored_drop: Number = Field(None, description="drop of the engine on `data.val`")
    why_not_verified: str = Field("", description="why the engine was not run on the selection images, or empty")
    floats: list[str] = Field([], description="ONNX nodes in float")
    layers: int = Field(0, description="nodes that the quantizer would put in int8")
    float_macs_share: Number = Field(None, description="share of the network's multiply-adds in the nodes in float")

    @property
    def text(self) -> str:
        """The layers in float and the drops in one sentence."""
        count = f"{len(self.floats)} of {self.layers} layers in float"
        doubt = f"; not verified on the engine: {self.why_not_verified}" if self.why_not_verified else ""
        return f"{count} ({percent(self.float_macs_share)}\u00a0% of the MACs); {self.drops}{doubt}"

    @property
    def drops(self) -> str:
        """The drops in points and their limit."""
        places = (
            (self.selection_drop, f"{self.images} selection images"),
            (self.scored_drop, "the scored split"),
        )
        found = [f"{percent(drop, 2)} on {where}" for drop, where in places if drop is not None]
        return (
            f"drop in points {metric_title(self.metric)}: {', '.join([*found, f'limit {percent(self.max_drop, 2)}'])}"
        )
