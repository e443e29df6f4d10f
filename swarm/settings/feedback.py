"""Of feedback: from which ratings on a stream is trained anew, and what it has to show before it is promoted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from swarm.keys import Positive, Settings


class Feedback(Settings):
    """Answers of what is promoted are rated; where the ratings are low, a stream is trained with them and tried on some requests."""

    below: Annotated[float, Field(gt=1, le=5)] = 3.8
    """A mean rating (1 to 5) below this has a stream trained anew; answers rated at or above it, and better ones, are its rows."""
    window: Positive = 50
    """The mean is that of the last so many ratings of what is promoted."""
    least: Positive = 10
    """And of so many at least, all newer than the last time that something was promoted, kept or discarded."""
    canary_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of the requests to the model `auto`: so many are answered by the new stream until it is judged."""
    canary_ratings: Annotated[int, Field(ge=2)] = 20
    """It is judged once so many of its answers, and of those of what is promoted, were rated meanwhile."""
    idle_hours: Annotated[float, Field(gt=0)] = 24.0
    """Without a rating or a training for so long, the run is over."""
