"""The handwritten digits that the small vision transformer learns from and is scored on."""

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_PICTURES = 500

Pictures = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def load_split() -> tuple[Pictures, Labels, Pictures, Labels]:
    """Return train_x, train_y, test_x, test_y: 1297 and 500 pictures, the same at every call.

    Pictures are float32 [n, 1, 8, 8], pixel / 16, so within [0, 1]; labels are int64 [n], the digit.
    Source: UCI Optical Recognition of Handwritten Digits, as scikit-learn ships it.
    """
    digits = load_digits()
    pictures = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        pictures, labels, test_size=TEST_PICTURES, stratify=labels, random_state=0
    )
    return train_x, train_y, test_x, test_y
