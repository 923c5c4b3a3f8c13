"""How hypothesis works for mutants: the same examples each time, no time limits, and no search for smaller ones."""

from hypothesis import Phase, settings

settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
settings.load_profile("mutants")
