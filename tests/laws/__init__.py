"""One contract that every divergence keeps. A new one enters by its line in `tutelage.divergences.ALL`.

`subjects` says which law does not hold for which divergence, and why; the other files state the laws.
"""
