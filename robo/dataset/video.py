"""Videos of episodes: written picture by picture, joined without decoding, read picture by picture in any order."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from robo.core.errors import RunError

CODEC, PIXELS, PRESET = "h264", "yuv444p", "veryfast"
"""Colours have the full resolution: with yuv420p, which players and other datasets have, what is learned from small
pictures differs from what a policy sees when it acts, however little they are compressed."""
CRF = 14
"""Quality of the pictures; 18 is hard to tell from the original for people."""
KEYFRAME_EVERY = 2
"""Distance of keyframes: at most one other picture is decoded to get one."""
MEND = "copy the dataset anew, or record it again"


def describe(fps: int, size: tuple[int, int]) -> dict[str, Any]:
    """What ``meta/info.json`` says of the videos of a camera."""
    return {
        "video.height": size[0],
        "video.width": size[1],
        "video.codec": CODEC,
        "video.pix_fmt": PIXELS,
        "video.fps": fps,
        "video.channels": 3,
        "video.g": KEYFRAME_EVERY,
        "video.crf": CRF,
        "video.preset": PRESET,
        "video.is_depth_map": False,
        "has_audio": False,
    }


class Encoder:
    """One episode of one camera as an H.264 video in memory.

    Args:
        fps: Pictures a second.
        size: Height and width [px], even numbers.
    """

    def __init__(self, fps: int, size: tuple[int, int]) -> None:
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        # Without B-frames: pictures lie in the order of time, and the n-th has the time n / fps exactly.
        # Without mbtree, whose look ahead in small pictures reads memory that nobody wrote: same pictures, same bytes.
        options = {"crf": str(CRF), "preset": PRESET, "g": str(KEYFRAME_EVERY), "bf": "0", "mbtree": "0"}
        self._stream = self._container.add_stream("libx264", rate=fps, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = PIXELS
        self._stream.codec_context.thread_count = 1

    def add(self, picture: np.ndarray) -> None:
        """Encode the next picture (H, W, 3) uint8."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The whole file; nothing can be added any more."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._buffer.getvalue()


class Film:
    """A video file kept open, for pictures in any order; for one thread at a time.

    Attributes:
        path: The file.
        frames: Number of pictures.

    Args:
        path: The file.
        fps: Pictures a second.
        size: Height and width [px].

    Raises:
        RunError: The file is missing, damaged, cut short, or holds pictures of another size or rate.
    """

    def __init__(self, path: Path, fps: int, size: tuple[int, int]) -> None:
        self.path, self.fps, self.size = path, fps, size
        if not path.is_file():
            raise RunError(f"no video {path}; {MEND}")
        try:
            self._container = av.open(str(path))
        except (FFmpegError, OSError) as error:
            raise RunError(f"video {path} is damaged ({error}); {MEND}") from error
        try:
            self._open()
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        path, size = self.path, self.size
        if not self._container.streams.video:
            raise RunError(f"{path} holds no video; {MEND}")
        stream = self._stream = self._container.streams.video[0]
        if (stream.height, stream.width) != size:
            raise RunError(f"video {path} is {stream.height} x {stream.width}, expected {size[0]} x {size[1]}; {MEND}")
        entries = [(e.timestamp, e.is_keyframe, e.pos + e.size) for e in stream.index_entries]
        self.frames = len(entries)
        if not entries or stream.time_base is None:
            raise RunError(f"video {path} holds no pictures; {MEND}")
        times, keys, ends = (np.array(column) for column in zip(*entries, strict=True))
        if ends.max() > path.stat().st_size:
            raise RunError(f"video {path} is cut short: {path.stat().st_size} bytes of {ends.max()}; {MEND}")
        self._start = stream.start_time or 0
        self._rate = stream.time_base * self.fps
        numbers = (times - times[0]) * float(self._rate)
        if np.abs(numbers - np.arange(self.frames)).max() > 0.01:
            raise RunError(f"the pictures of video {path} do not come {self.fps} times a second; {MEND}")
        self._keys = np.flatnonzero(keys)
        # Damage is an error, not a picture patched up; one thread, since more only delay small pictures.
        stream.codec_context.options = {"err_detect": "explode"}
        stream.codec_context.thread_count = 1
        self._reformatter = VideoReformatter()
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._at, self._picture = -1, np.empty(0, np.uint8)

    def picture(self, number: int) -> np.ndarray:
        """Picture `number` of the file, (H, W, 3) uint8; do not write into it.

        Raises:
            RunError: There is no such picture, or the file is damaged there.
        """
        if not 0 <= number < self.frames:
            raise RunError(f"video {self.path} has no picture {number}, only {self.frames}; {MEND}")
        if number != self._at:
            try:
                frame = self._decode(number)
                self._picture = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            except (FFmpegError, OSError) as error:
                self._at = -1
                raise RunError(f"video {self.path} is damaged at picture {number} ({error}); {MEND}") from error
            self._at = number
        return self._picture

    def _decode(self, number: int) -> av.VideoFrame:
        key = self._keys[np.searchsorted(self._keys, number, side="right") - 1]
        # Going on costs a decoded picture each; jumping costs those since the keyframe, and about one more.
        if 0 <= self._at < number and number - self._at <= number - key + 2:
            frame = self._next(number)
            if frame is not None:
                return frame
        for back in (0, self.frames):  # with B-frames a jump may land too late: then from the first picture on
            self._jump(max(number - back, 0))
            frame = self._next(number)
            if frame is not None:
                return frame
        raise RunError(f"video {self.path} has no picture at {number / self.fps:.3f} s; {MEND}")

    def _jump(self, number: int) -> None:
        self._container.seek(self._start + round(number / self._rate), stream=self._stream)
        self._frames = self._container.decode(self._stream)

    def _next(self, number: int) -> av.VideoFrame | None:
        for frame in self._frames:
            if frame.pts is None:
                continue
            found = round((frame.pts - self._start) * self._rate)
            if found == number:
                if frame.is_corrupt:
                    raise RunError(f"video {self.path} is damaged at picture {number}; {MEND}")
                return frame
            if found > number:
                break
        return None

    def packets(self, first: int, count: int) -> list[av.Packet]:
        """The encoded pictures from `first` on.

        Raises:
            RunError: These begin at no keyframe or are not `count`.
        """
        start, self._at = self._start + round(first / self._rate), -1
        try:
            self._container.seek(start, stream=self._stream)
            demuxed = (packet for packet in self._container.demux(self._stream) if packet.size)
            found = [packet for packet, _ in zip(demuxed, range(count), strict=False)]
        except (FFmpegError, OSError) as error:
            raise RunError(f"video {self.path} is damaged ({error}); {MEND}") from error
        times = sorted(packet.pts for packet in found if packet.pts is not None)
        expected = [self._start + round((first + i) / self._rate) for i in range(count)]
        if times != expected or not found[0].is_keyframe:
            raise RunError(
                f"pictures {first} to {first + count - 1} of video {self.path} cannot be cut out: "
                "they begin at no keyframe or are not in order; record it again"
            )
        return found

    @property
    def template(self) -> av.VideoStream:
        """The stream, as a pattern for others."""
        return self._stream

    @property
    def kind(self) -> tuple[Any, ...]:
        """What must be equal in videos that are joined."""
        context = self._stream.codec_context
        return context.name, context.extradata, self._stream.time_base

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class Joiner:
    """Pieces of videos one after the other in one file in memory, as they are encoded.

    Attributes:
        frames: Pictures so far.
        size: Bytes of these.

    Args:
        like: A video of the same kind as those that will come.
    """

    def __init__(self, like: Film) -> None:
        self.frames = self.size = 0
        self.kind = like.kind
        self._fps = like.fps
        self._buffer = io.BytesIO()
        # Without the bit rate of the first piece, the file depends on the pictures alone.
        self._container = av.open(self._buffer, "w", format="mp4", options={"write_btrt": "0"})
        self._stream = self._container.add_stream_from_template(like.template)
        self._stream.time_base = like.template.time_base

    def add(self, film: Film, first: int, count: int) -> None:
        """Append pictures `first` to `first` + `count` - 1 of a video whose `Film.kind` is the same.

        Raises:
            RunError: These begin at no keyframe, are not `count`, or the file is damaged.
        """
        packets = film.packets(first, count)
        base = film.template.time_base or Fraction(1, film.fps)
        shift = round(self.frames / (base * self._fps)) - min(packet.pts or 0 for packet in packets)
        for packet in packets:
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = self._stream
            self.size += packet.size
            self._container.mux(packet)
        self.frames += count

    def finish(self) -> bytes:
        """The whole file; nothing can be added any more."""
        self._container.close()
        return self._buffer.getvalue()


class Shelf:
    """Films kept open, the least used closed when they are too many; for one thread.

    Args:
        fps: Pictures a second.
        limit: How many may be open.
    """

    def __init__(self, fps: int, limit: int = 32) -> None:
        self._fps, self._limit = fps, limit
        self._films: OrderedDict[Path, Film] = OrderedDict()

    def film(self, path: Path, size: tuple[int, int]) -> Film:
        """The film of a file; see `Film`."""
        if path not in self._films:
            if len(self._films) >= self._limit:
                self._films.popitem(last=False)[1].close()
            self._films[path] = Film(path, self._fps, size)
        self._films.move_to_end(path)
        return self._films[path]

    def close(self) -> None:
        """Close all."""
        while self._films:
            self._films.popitem()[1].close()
