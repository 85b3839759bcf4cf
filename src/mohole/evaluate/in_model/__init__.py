"""A dictionary in the place of activations inside the running model: what predictions and skills are lost.

passages    held-out text in batches: which positions are replaced, which predictions are scored
edits       the stand-in's edits of one forward pass
ablations   what a reconstruction is held against: the activation taken away
splice      the model run with all of that in place; `nats` says what CE and KL come to
held_out    the same on a little text, again and again while a dictionary is learned
tasks       what the model could do, and still can
"""
