"""What attnkit measures, in the words of numpy, scipy and scikit-image: of one map, and between two.

Statistics are those of docs/store-format.md, metrics those of `attnkit query compare --help`.
"""

import numpy as np
from scipy import spatial, stats
from skimage.metrics import structural_similarity


def statistics(maps, grid):
    """Every statistic of `heads` for finite, nonnegative maps `[map, spatial]`; NaN where a map without mass has
    none."""
    n = maps.shape[1]
    total = maps.sum(axis=1)
    with np.errstate(invalid="ignore"):
        share = maps / total[:, None]
    ascending = np.sort(maps, axis=1)
    entropy = -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum(axis=1)
    frame, y, x = (index.ravel() for index in np.indices(grid))
    peak = maps.argmax(axis=1)
    centroid_y, centroid_x = share @ y, share @ x
    distance = (y - centroid_y[:, None]) ** 2 + (x - centroid_x[:, None]) ** 2

    def top(percent):
        with np.errstate(invalid="ignore"):
            return ascending[:, n - -(-n * percent // 100) :].sum(axis=1) / total

    with np.errstate(invalid="ignore"):
        gini = 2 * (ascending @ np.arange(1, n + 1)) / (n * total) - (n + 1) / n
    return {
        "sum": total,
        "mean": total / n,
        "std": maps.std(axis=1),
        "min": ascending[:, 0],
        "max": ascending[:, -1],
        "argmax_frame": frame[peak],
        "argmax_y": y[peak],
        "argmax_x": x[peak],
        "entropy": entropy,
        "entropy_norm": entropy / np.log(n),
        "gini": gini,
        "top1": top(1),
        "top5": top(5),
        "top10": top(10),
        "centroid_frame": share @ frame,
        "centroid_y": centroid_y,
        "centroid_x": centroid_x,
        "spread": np.sqrt((share * distance).sum(axis=1)),
        "nonfinite": np.zeros(len(maps), np.int32),
    }


def assert_statistics(rows, maps, grid):
    """The columns of `rows` are the statistics of `maps`, to what float64 sums in another order can differ."""
    for name, expected in statistics(maps, grid).items():
        tolerance = 0 if expected.dtype.kind == "i" else 1e-7 if name == "spread" else 1e-9
        np.testing.assert_allclose(rows[name], expected, rtol=tolerance, err_msg=name)


def js(a, b):
    return spatial.distance.jensenshannon(a.ravel(), b.ravel()) ** 2


def above(m, threshold):
    """Where a map is above a threshold, or if it is nowhere, at it; None of a constant map."""
    if m.min() == m.max():
        return None
    return m > threshold if (m > threshold).any() else m == threshold


def iou(quantile):
    def metric(a, b):
        a, b = above(a, np.quantile(a, quantile)), above(b, np.quantile(b, quantile))
        return np.nan if a is None or b is None else (a & b).sum() / (a | b).sum()

    return metric


def topk(fraction):
    def metric(a, b):
        k = -(-a.size * round(1000 * fraction) // 1000)
        a, b = (above(m, np.sort(m, axis=None)[::-1][k]) for m in (a, b))
        return np.nan if a is None or b is None else (a & b).sum() / max(a.sum(), b.sum())

    return metric


def kl(a, b):
    value = stats.entropy(a.ravel(), b.ravel())
    return np.nan if np.isinf(value) else value


def emd(a, b):
    if not (a.sum() and b.sum()):
        return np.nan
    total = 0
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        cells = np.arange(a.shape[axis])
        total += stats.wasserstein_distance(cells, cells, a.sum(axis=others), b.sum(axis=others))
    return total


def ssim(a, b):
    size = max(odd for odd in (3, 5, 7) if odd <= min(a.shape[1:]))
    scale = max(a.max(), b.max()) - min(a.min(), b.min())
    if scale == 0:
        return 1.0
    return np.mean([structural_similarity(x, y, win_size=size, data_range=scale) for x, y in zip(a, b)])


def centroid(a, b):
    y, x = np.indices(a.shape)[1:]
    (ya, xa), (yb, xb) = (((m * y).sum() / m.sum(), (m * x).sum() / m.sum()) for m in (a, b))
    return np.hypot(ya - yb, xa - xb)


# By name: of two float64 maps [frame, height, width].
METRICS = {
    "cosine": lambda a, b: 1 - spatial.distance.cosine(a.ravel(), b.ravel()),
    "pearson": lambda a, b: stats.pearsonr(a.ravel(), b.ravel()).statistic,
    "spearman": lambda a, b: stats.spearmanr(a.ravel(), b.ravel()).statistic,
    "js": js,
    "kl": kl,
    "iou@0.8": iou(0.8),
    "iou@0.95": iou(0.95),
    "topk@0.1": topk(0.1),
    "emd": emd,
    "ssim": ssim,
    "l2": lambda a, b: np.linalg.norm(a - b),
    "centroid": centroid,
    "mass_ratio": lambda a, b: a.sum() / b.sum() if b.sum() else np.nan,
}
