"""How much a video, a tar or an image may ask for before it is refused.

All of them lie far above what cameras and data sets give, and keep a hostile or damaged file from
taking all memory or running for days.
"""

from __future__ import annotations

MAX_FRAME_PIXELS = 8192 * 8192
MAX_DURATION_SECONDS = 24 * 3600.0
MAX_FRAMES = 10_000_000  # or packets, or images of a folder
MAX_STREAMS = 64  # of a video file: picture, sound, subtitles and the rest
MAX_TAR_MEMBERS = 2_000_000  # 9 hours at 60 frames a second
MAX_IMAGE_NBYTES = 256 * 2**20  # of an encoded image
MAX_TAR_HEADER_NBYTES = 2**20  # of a member's long name and other extras
