"""The few operations that a sparse autoencoder spends its time in: slow obvious versions, and fast ones tested against them."""
