"""Sine waves from ten points, as in the MAML paper (Finn et al. 2017, section 5.1)."""

from metarec.meta import BatchedMAML
import torch
from torch import nn

ITERATIONS = 200
TASKS, ROWS, STEPS = 25, 10, 5


def sines():
    """Support and query rows of many sine waves: inputs and targets, [TASKS, ROWS, 1] each."""
    amplitude, phase = 0.1 + 4.9 * torch.rand(TASKS, 1, 1), 3.14 * torch.rand(TASKS, 1, 1)
    inputs = 10 * torch.rand(2, TASKS, ROWS, 1) - 5
    return list(zip(inputs, amplitude * torch.sin(inputs + phase), strict=True))


def loss_after_steps(maml, support, query):
    """One task after the other: adapt a clone to the support rows, ask it about the query rows."""
    total = 0.0
    for number in range(TASKS):
        (inputs, targets), (new_inputs, new_targets) = ((x[number], y[number]) for x, y in (support, query))
        task = maml.clone()
        for _ in range(STEPS):
            task.adapt(squared_error(task(inputs), targets).mean())
        total = total + squared_error(task(new_inputs), new_targets).mean()
    return total / TASKS


torch.manual_seed(0)
squared_error = nn.MSELoss(reduction="none")
model = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
maml = BatchedMAML(model, lr=0.01)
optimizer = torch.optim.Adam(maml.parameters(), lr=0.001)
losses = []
for iteration in range(ITERATIONS):
    support, query = sines()
    loss = maml.meta_loss(support, query, loss=squared_error, steps=STEPS)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if iteration % 50 == 49:
        print(f"iteration {iteration + 1}: squared error {sum(losses[-50:]) / 50:.3f}")
