"""`/v1`: a run's model as it is and steered, in the words of OpenAI's API, which everybody's clients speak."""
