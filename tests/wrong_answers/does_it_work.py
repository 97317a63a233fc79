"""Wrong answers to the exercises of notebook 08."""

WRONG = {
    "08.1": [
        lambda F, operations: F * (F - 1) * 65,
        lambda F, operations: F * (F - 1) // 2 * 65,
        lambda F, operations: F * (F - 1) * 2 * 6 * len(operations) ** 2,
    ],
    "08.2": [
        lambda rungs: sum(count * epochs for count, epochs in rungs),
        lambda rungs: sum(epochs for _, epochs in rungs),
        lambda rungs: 172,
    ],
    "08.3": [
        lambda x, y: sum(a == b for a, b in zip(x, y, strict=True)) / len(x),
        lambda x, y: 1.0 if x == y else -1.0,
    ],
    "08.4": [1, 13, 1950],
    "08.5": [
        lambda k, n: (
            100 * (k / n - 1.96 * (k / n * (1 - k / n) / n) ** 0.5),
            100 * (k / n + 1.96 * (k / n * (1 - k / n) / n) ** 0.5),
        ),
        lambda k, n: 100 * k / n,
        lambda k, n: ("low", "high"),
    ],
    "08.6": [1, 6, 268],
}
