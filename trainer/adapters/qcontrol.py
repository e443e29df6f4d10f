"""Control adapters on a base held in 4 bits, as qlora holds it."""

from __future__ import annotations

from trainer.adapters.control import Control, ControlSettings
from trainer.adapters.qlora import Qlora, QloraSettings


class QcontrolSettings(ControlSettings, QloraSettings):
    pass


class Qcontrol(Control, Qlora):
    name = "qcontrol"
    summary = "control with the base in 4 bits: NF4 with double quantisation"
    settings = QcontrolSettings


KINDS = (Qcontrol(),)
