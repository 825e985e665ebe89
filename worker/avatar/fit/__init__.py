"""The fit: one shape from one or two views, in damped least squares.

evidence    a photo's keypoints and outline, at one scale
start       which way the person faces, how the limbs hang
outline     the body's own outline, and what it is paired with
residuals   distances in standard deviations, with derivatives
solver      the damped normal equations
fitter      all of it, in order
"""

from worker.avatar.fit.fitter import fit_body
from worker.avatar.fit.options import FitOptions

__all__ = ["FitOptions", "fit_body"]
