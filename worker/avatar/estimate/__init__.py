"""A first body from one photo: proposed here, decided by the fit.

    protocol     Estimator and BodyEstimate
    pixie        PIXIE: SMPL-X shape and pose
    sam3d_body   SAM 3D Body: an MHR body
    mhr          MHR's surface brought over to other topologies
    guess        estimates as a place where the fit may start
    chain        the declared order, and who takes over when one fails

The prior (height and weight alone) is the last of every order and needs nothing: it is where
`worker.avatar.fit` starts by itself.
"""

from worker.avatar.estimate.protocol import BodyEstimate, Estimator, Topology

__all__ = ["BodyEstimate", "Estimator", "Topology"]
