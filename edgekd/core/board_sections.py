"""Sections of a board's entry in the inventory."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from edgekd.core.training_sections import Section

_DEPLOY_FOLDER = re.compile(r"(~/|/)[A-Za-z0-9._+/-]*[A-Za-z0-9]")


class Expects(Section):
    """State that the board must have before a measurement. edgekd compares and never sets it."""

    nvpmodel: int | None = Field(None, ge=0, description="Number of the power mode that `nvpmodel -q` prints.")
    clocks: Literal["locked"] | None = Field(None, description="`locked`: the lowest and the highest clock are equal.")


class Quiet(Section):
    """Quiet state that a measurement waits for."""

    load: float = Field(0.3, gt=0, description="Most processor time that other processes may take, in cores.")
    celsius: float = Field(60, description="Highest temperature of the hottest sensor.")
    wait_s: float = Field(120, ge=0, description="Longest wait; then the measurement goes on with a warning.")


class Deploy(Section):
    """Permissions of `edgekd deploy` on the board."""

    allowed: bool = Field(True, description="False: the board only measures.")
    folder: str = Field(
        "~/.local/share/edgekd",
        description="The board's folder for releases, one folder a name, and `allowed_signers`.",
    )
    require_signature: bool = Field(False, description="Refuse what is not signed, also without `allowed_signers`.")
    health_s: float = Field(30, gt=0, description="Time in which a service has to become healthy after a switch.")

    @field_validator("folder")
    @classmethod
    def _can_stand_in_a_unit(cls, text: str) -> str:
        if not _DEPLOY_FOLDER.fullmatch(text):
            raise ValueError(
                "expected a path from / or ~/, of letters, digits and . _ - +, because systemd reads it in a unit"
            )
        return text
