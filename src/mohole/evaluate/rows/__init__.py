"""What stored rows and the weights say of a dictionary. No model is run.

choice         which rows are looked at, and reading them
sums           what sums over rows say: FVU, L0, dead latents and the like
measure        the way of the rows through the dictionary into those sums
dark_matter    what is left unexplained, class by class of `token_classes`
linear_error   how much of it a linear map of the activation would say
growth         dictionaries of several sizes: what more latents would explain
weights        what the weights say without any row
"""
