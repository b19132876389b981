"""The paper's experiments: grids of ordinary training runs, run within a time budget, and what came out of them."""
