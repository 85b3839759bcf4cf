"""Against ground truth: is each known concept a latent, in every language, and does that latent move predictions?

truth       the corpus's labels as rows, and what each is contrasted with
floors      what can be had without a dictionary: a probe, principal components, random directions
ranking     the best of many columns for a label, at every threshold at once
finder      the detectors of a label, chosen on training documents and scored on held-out ones
summary     families of labels in one line each
languages   one latent for a concept in every language?
cause       detection is not cause: the best latents edited in the model; `effects` counts what that did
measure     all of these, for every label
results     what they found, as typed values
"""
