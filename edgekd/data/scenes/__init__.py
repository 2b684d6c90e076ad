"""Rendered street scenes in which thin parts, holes and context decide the class. Integers only, numpy only.

Nine classes. The same discs, rings, bars and masonry occur in several of them, and only what is around tells them apart:

sky, ground   ground may be paved with the very bricks of the buildings; clouds, contrails and shadows are no objects
building      masonry with windows; panes may mirror the sky or be round and coloured like a ball
wall          the same masonry without windows, standing free, sometimes with see-through arches
fence         thin parallel or crossed bars with rails; the bars look like poles
pole          thin posts, their cross-arms, and the wires between them
sign          a plate (disc, ring, triangle, square, diamond) at the top of a pole
ball          the same disc without a pole, in the sky or on the ground
ring          the same ring without a pole; what is seen through the hole keeps its own class
"""

from __future__ import annotations

CLASSES = ("sky", "ground", "building", "wall", "fence", "pole", "sign", "ball", "ring")
SKY, GROUND, BUILDING, WALL, FENCE, POLE, SIGN, BALL, RING = range(len(CLASSES))

# Classes whose objects can be counted; each of these objects is an instance.
THINGS = (BUILDING, SIGN, BALL, RING)
