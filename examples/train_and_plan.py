"""Train a predefined-sparse net on the bundled digits, cut it, plan it for a Raspberry Pi.

The net has two early exits.
"""

from presplit import plan
from presplit.train import add_exits, export, fit, sparsify, summary
from presplit.train.data import digits, hold_out
from presplit.train.zoo import small_cnn

data = digits()
train_data, held_out = hold_out(data.train, 0.2)

model = sparsify(small_cnn(width=16, size=8), density=0.25)
model = add_exits(model, after=["stem", "block1"])
fit(model, train_data, epochs=6)
print(f"{sum(layer.weights for layer in summary(model)):,} weights")

bundle = export(model, held_out, "digits.bundle", name="digits")
best = plan.search(bundle, device="raspberry-pi-4", link="lte", server="server-cpu", deadline_s=0.2)
print(plan.explain(best))
