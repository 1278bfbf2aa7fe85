"""Training, evaluation and measuring; nothing of the product imports it."""
