"""Layer normalization and its root-mean-square kin: how models write it, what it becomes, and the pass between them."""
