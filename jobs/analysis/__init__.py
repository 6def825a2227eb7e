"""What analyses and fine-tunes with an analysis run: measuring on a worker, and what they leave."""
