"""What should not be. Each guard that sees it says so in a sentence of the evaluation, or refuses to begin.

provenance  the rows must be this model's over this corpus: other ones are refused
numbers     what was measured, out of its range
trials      a dictionary that does better as something it is not said to be

A NaN is not warned about: it stops the stage, with its place.
"""
