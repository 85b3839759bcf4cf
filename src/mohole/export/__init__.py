"""A run's features in other tools' formats: Neuronpedia's bulk files, Parquet tables."""
