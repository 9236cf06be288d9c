"""Train a small vision transformer on handwritten digits and export it to ONNX."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.digits import load_split

WIDTH = 96
LAYERS = 3
HEADS = 4
HIDDEN = 2 * WIDTH
PATCH = 2
TOKENS = (8 // PATCH) ** 2

EPOCHS = 120
BATCH = 64
PEAK_LEARNING_RATE = 2e-3


class Attention(nn.Module):
    """Multi-head self-attention written out, so that the export shows its products and its Softmax."""

    def __init__(self) -> None:
        """Make the four projections, each [WIDTH, WIDTH]."""
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [batch, tokens, WIDTH] to the same shape."""
        batch = tokens.shape[0]
        query, key, value = (
            project(tokens).reshape(batch, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5
        mixed: Tensor = scores.softmax(-1) @ value
        joined: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, -1, WIDTH))
        return joined


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self) -> None:
        """Make the attention, the two normalizations and the feed-forward part."""
        super().__init__()
        self.norm_before = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm_after = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, HIDDEN)
        self.contract = nn.Linear(HIDDEN, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [batch, tokens, WIDTH] to the same shape."""
        tokens = tokens + self.dropout(self.attention(self.norm_before(tokens)))
        hidden = functional.gelu(self.expand(self.norm_after(tokens)))
        updated: Tensor = tokens + self.dropout(self.contract(hidden))
        return updated


class DigitsViT(nn.Module):
    """A vision transformer for pictures of 8 x 8 pixels and ten classes."""

    def __init__(self) -> None:
        """Make the patch embedding, the class token, the position table, the layers and the head."""
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, TOKENS + 1, WIDTH))
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel_values [batch, 1, 8, 8] within [0, 1] to logits [batch, 10]."""
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(pixel_values.shape[0], -1, -1)
        tokens = torch.cat((class_token, patches), 1) + self.positions
        logits: Tensor = self.head(self.norm(self.layers(tokens))[:, 0])
        return logits


def jitter(pictures: Tensor) -> Tensor:
    """Turn, scale, slant and shift each picture [n, 1, 8, 8] a little, by up to 0.15 and one pixel."""
    count = pictures.shape[0]
    linear = torch.eye(2) + torch.empty(count, 2, 2).uniform_(-0.15, 0.15)
    # Grid coordinates run from -1 to 1 over 8 pixels, so a pixel is 0.25.
    shift = torch.empty(count, 2, 1).uniform_(-0.25, 0.25)
    grid = functional.affine_grid(torch.cat((linear, shift), 2), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def train(model: DigitsViT, pictures: Tensor, labels: Tensor) -> None:
    """Fit the model to pictures [n, 1, 8, 8] and labels [n], then put it in evaluation mode."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH)[: len(labels) // BATCH]:
            logits = model(jitter(pictures[batch]))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def export(model: DigitsViT, target: Path) -> None:
    """Write the model to target with torch's TorchScript exporter at opset 17, the batch left open."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        target,
        dynamo=False,
        opset_version=17,
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
    )


def main() -> None:
    """Train with a fixed seed, print the accuracy on the held-out pictures, and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=Path(__file__).with_suffix(".onnx"))
    target = parser.parse_args().target
    torch.manual_seed(0)
    torch.set_num_threads(2)
    train_x, train_y, test_x, test_y = load_split()
    model = DigitsViT()
    train(model, torch.from_numpy(train_x), torch.from_numpy(train_y))
    with torch.no_grad():
        decisions = model(torch.from_numpy(test_x)).argmax(1).numpy()
    export(model, target)
    accuracy = float(np.mean(decisions == test_y))
    print(f"{target}: {target.stat().st_size} bytes, {accuracy:.1%} of {len(test_y)} held-out pictures right")


if __name__ == "__main__":
    main()
