"""The control plane: accepts jobs, keeps their records and answers questions about them."""
