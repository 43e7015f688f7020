"""A training loop of plain PyTorch, the peer of scripts/train.py."""

import sys
import time

import numpy
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lazytorch

__all__ = ["train"]


def train(file: str, name: str, batch_size: int, epochs: int, folder: str) -> None:
    """Train a model of the zoo with AdamW; validate and save a checkpoint after each epoch.

    Print a line for each epoch: the time at its end, the training loss and the training and validation accuracies.

    Args:
        file: A .npz file: ``train_images`` and ``val_images`` (samples, channels, *spatial), standardized, of the size
            that the model gets; ``train_labels`` and ``val_labels`` (samples,).
        name: The model's name.
        batch_size: Samples a step.
        epochs: Passes over the training samples.
        folder: Where the checkpoint is saved.
    """
    arrays = {key: torch.from_numpy(value) for key, value in numpy.load(file).items()}
    training = TensorDataset(arrays["train_images"], arrays["train_labels"])
    validation = TensorDataset(arrays["val_images"], arrays["val_labels"])
    model = lazytorch.models.get_model(name, num_classes=int(arrays["train_labels"].max()) + 1)
    lazytorch.materialize(model, arrays["train_images"][:2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(training) // batch_size)
    for _ in range(epochs):
        model.train()
        loss_sum, right, validated = 0.0, 0, 0
        for samples, labels in DataLoader(training, batch_size, shuffle=True):
            logits = model(samples)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(samples)
            right += (logits.argmax(1) == labels).sum().item()
        model.eval()
        with torch.inference_mode():
            for samples, labels in DataLoader(validation, batch_size):
                validated += (model(samples).argmax(1) == labels).sum().item()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{folder}/checkpoint.pt")
        accuracies = right / len(training), validated / len(validation)
        print(time.time(), loss_sum / len(training), *accuracies, flush=True)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
