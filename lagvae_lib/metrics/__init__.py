"""What is measured of a model, in nats per example unless a name says otherwise."""

THRESHOLD = 0.01  # of the variance of a dimension's posterior means, from which on it counts as active (the paper's)
