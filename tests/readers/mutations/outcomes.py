"""What may come of a mutation: what the store holds then, and how ingest ends."""

from collections.abc import Callable
from dataclasses import dataclass

from good_dump import FURTHER, SEEDS, STEP, VIDEO, WORD


@dataclass(frozen=True)
class Outcome:
    """What the store must hold, made of what the good dump holds; how ingest ends (None: with 3 if it must)."""

    holds: Callable = lambda steps: steps
    code: int | None = 0


def of(video=None, word=None, step=None):
    """Which steps are meant."""
    return lambda known: all(part in (None, own) for part, own in zip((video, word, step), known.key))


TOUCHED, WHOLE_WORD, WHOLE_VIDEO = of(VIDEO, WORD, STEP), of(VIDEO, WORD), of(VIDEO)


def changed(chosen=TOUCHED, code=0, **change):
    """These steps are otherwise: their arrays, numbers or columns."""
    return Outcome(lambda steps: [step.changed(**change) if chosen(step) else step for step in steps], code)


def row(**columns):
    return changed(**columns)


def without(chosen, code=3):
    return Outcome(lambda steps: [step for step in steps if not chosen(step)], code)


def further(*changes, like=TOUCHED, code=0):
    """Steps like the touched one (then from number 10 on) or like all of a word or video but for these changes."""

    def holds(steps):
        models = [step for step in steps if like(step)]
        numbers = [{"step": FURTHER + place} if like is TOUCHED else {} for place in range(len(changes))]
        added = [{**number, **change} for number, change in zip(numbers, changes)]
        return [*steps, *(model.changed(**change) for change in added for model in models)]

    return Outcome(holds, code)


def spelled(*words):
    """Further words of one step, each with its video."""
    return further(*[{"token": word, "step": STEP, "video_id": video, "seed": SEEDS[video]} for word, video in words])


def filmed(prompts):
    """Further videos of one step, each with the prompt it is of."""
    return further(*[{"video_id": name, "prompt_id": prompt, "step": STEP} for name, prompt in prompts.items()])


SAME = Outcome()
LEFT_OUT, WORD_LEFT_OUT = without(TOUCHED), without(WHOLE_WORD)
# All steps of the good dump are there, and further files are left out; or are named there or in a warning.
OTHERS_LEFT_OUT, NAMED = Outcome(code=3), Outcome(code=None)
REFUSED = Outcome(code=1)


class Among:
    """One of these values."""

    def __init__(self, *values):
        self.values = values

    def __eq__(self, other):
        return other in self.values

    def __repr__(self):
        return " or ".join(map(repr, self.values))


ANYTHING = "*"
