"""The chosen methods' own knobs, what their prior looks at and what they would see: one component made from data."""

from collections.abc import Mapping
from typing import Annotated, Any

import gradio as gr
from gradio.data_classes import GradioModel
from pydantic import Field

from asuka_infer.settings import Knob, Value
from demo.engine import MOST_METHODS, Choices
from demo.stub_files import no_stub_file
from demo.texts import TEXTS, static_text

LONGEST_NAME = 100
LONGEST_VALUE = 450_000
"""Characters of one value: a small prior picture as base64, see `asuka_infer.prior_choice`."""

MOST_KNOBS = 40

PRIOR_KNOBS = frozenset({"prior", "prior_colour", "prior_picture"})
"""Those that are shown together as one choice."""


class KnobData(GradioModel):
    """One knob as `asuka_infer.settings.Knob` describes it; ends that do not exist are None."""

    name: str
    kind: str
    default: bool | int | float | str
    meaning: str
    lowest: float | None = None
    highest: float | None = None
    options: list[str] = Field(default_factory=list[str])


class MethodData(GradioModel):
    """A chosen method: its knobs, and whether it can show what it sees before it begins."""

    key: str
    title: str
    knobs: list[KnobData] = Field(default_factory=list[KnobData])
    shows_prior: bool = False


class LookData(GradioModel):
    """A picture of what a method sees; `picture` is a data URL."""

    method: str
    name: str
    picture: str


Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Said = bool | int | float | Annotated[str, Field(max_length=LONGEST_VALUE)]


class PanelData(GradioModel):
    """What browser and server tell each other.

    Attributes:
        methods: the chosen ones, in order.
        values: method key -> knob -> value, for what the visitor has turned.
        looks: what the methods see, when it was asked for.
        message: what went wrong, for the visitor.
        told: counts the server's messages, so that the same one twice is noticed.
    """

    methods: list[MethodData] = Field(default_factory=list[MethodData], max_length=MOST_METHODS + 1)
    values: dict[Name, Annotated[dict[Name, Said], Field(max_length=MOST_KNOBS)]] = Field(
        default_factory=dict[str, dict[str, Any]], max_length=100
    )
    looks: list[LookData] = Field(default_factory=list[LookData])
    message: str = ""
    told: int = 0


def knob_data(knob: Knob, meaning: str) -> KnobData:
    """A knob as JSON can carry it, its meaning in the visitor's language."""
    return KnobData(
        name=knob.name,
        kind=knob.kind,
        default=knob.default,
        meaning=meaning,
        lowest=knob.lowest if knob.lowest > -float("inf") else None,
        highest=knob.highest if knob.highest < float("inf") else None,
        options=list(knob.options),
    )


with no_stub_file():

    class MethodPanel(gr.HTML):
        """Shows knobs; functions get the turned ones (`demo.engine.Choices`) from it and give it `PanelData`.

        Listen to `.look(...)`: the visitor wants to see what the methods see.
        """

        data_model = PanelData

        def __init__(self, *, elem_id: str, value: PanelData | None = None, **described: Any) -> None:
            """`described` takes what `gr.Blocks.get_config` hands back when Gradio rebuilds the component."""
            super().__init__(
                value=value,
                elem_id=elem_id,
                html_template=static_text("panel.html"),
                css_template=static_text("panel.css"),
                js_on_load=static_text("panel.js"),
                apply_default_css=False,
                texts=TEXTS,
                padding=False,
                **described,
            )

        def preprocess(self, payload: PanelData | None) -> Choices:  # type: ignore[override]
            """Names and values as they came; the settings themselves refuse what they cannot take."""
            turned: Mapping[str, Mapping[str, Value]] = payload.values if payload else {}
            return {key: dict(values) for key, values in turned.items()}

        def postprocess(self, value: PanelData | None) -> PanelData | None:  # type: ignore[override]
            """Handed on as it is."""
            return value

        def api_info(self) -> dict[str, Any]:
            """The shape of the value."""
            return PanelData.model_json_schema()

        def example_payload(self) -> None:
            """No methods."""

        def example_value(self) -> None:
            """No methods."""
