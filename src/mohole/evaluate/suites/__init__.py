"""The supervised and causal suites, each in the file of its name in `evaluate.suites`; docs/supervised-metrics.md has the laws.

classes           tokens sorted into classes that exclude each other
coders            the dictionary, and what it is held against, as codes with directions
readout           what the model makes of an edited activation
removal           latents taken out at every token
material          all that a suite works on, and how it reports
sparse_probing, absorption, scr, tpp, ravel, unlearning
measure           those that are asked for
"""
