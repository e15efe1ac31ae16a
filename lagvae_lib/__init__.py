"""A runnable companion to He et al. (ICLR 2019), "Lagging Inference Networks and Posterior Collapse in VAEs"."""
