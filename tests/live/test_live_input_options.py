"""Options of FFmpeg's inputs: a misspelt one is refused, and none that FFmpeg has is missing."""

import ctypes
from pathlib import Path

import av
import pytest

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.sources.ffmpeg_options import INPUT_OPTIONS
from maskstream.pipeline.sources.live import InputOptions, open_live
from tests.support.media import moving_shapes, write_video


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rtsp_transprt", "no input option 'rtsp_transprt'; did you mean 'rtsp_transport'?"),
        ("Headers", "did you mean 'headers'?"),
        ("nonsense_zzz", "no input option 'nonsense_zzz'$"),
        ("", "no input option ''"),
    ],
)
def test_a_misspelt_input_option_is_refused(name, says):
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        open_live("rtsp://cam/1", InputOptions(extra={name: "1"}))


@pytest.mark.parametrize("name", ["headers", "video_size", "passphrase", "reconnect", "fflags"])
def test_an_input_option_of_ffmpeg_is_passed_on(name):
    live = open_live("rtsp://cam/1", InputOptions(extra={name: "1"}))
    assert live.source.options[name] == "1"


def test_a_file_takes_no_input_options(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", moving_shapes(2, (36, 64))[0])
    with pytest.raises(ConfigError, match="leave --input out"):
        open_live(clip, InputOptions(extra={"probesize": "9"}))


class AVOption(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("help", ctypes.c_char_p),
        ("offset", ctypes.c_int),
        ("type", ctypes.c_int),
    )


class AVInputFormat(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("long_name", ctypes.c_char_p),
        ("flags", ctypes.c_int),
        ("extensions", ctypes.c_char_p),
        ("codec_tag", ctypes.c_void_p),
        ("priv_class", ctypes.c_void_p),
    )


CONSTANT = 11  # AV_OPT_TYPE_CONST: a value of an option, not an option
LIBRARIES = Path(av.__file__).parents[1] / "av.libs"


def library(name):
    found = ctypes.CDLL(str(next(LIBRARIES.glob(f"lib{name}-*"))))
    for function in ("av_opt_next", "avformat_get_class", "av_demuxer_iterate"):
        if hasattr(found, function):
            getattr(found, function).restype = ctypes.c_void_p
    return found


@pytest.mark.skipif(
    not LIBRARIES.is_dir() or av.library_versions["libavformat"][0] != 62,
    reason="PyAV is not the wheel with FFmpeg 8",
)
def test_no_option_of_ffmpeg_is_missing():
    formats, util = library("avformat"), library("avutil")

    def names(of_class):
        holder, option = ctypes.c_void_p(of_class), None
        while option := util.av_opt_next(ctypes.byref(holder), ctypes.c_void_p(option)):
            about = AVOption.from_address(option)
            if about.type != CONSTANT:
                yield about.name.decode()

    found, state = set(names(formats.avformat_get_class())), ctypes.c_void_p()
    while demuxer := formats.av_demuxer_iterate(ctypes.byref(state)):
        of_class = AVInputFormat.from_address(demuxer).priv_class
        found |= set(names(of_class)) if of_class else set()
    formats.avio_enum_protocols.restype = ctypes.c_char_p
    formats.avio_protocol_get_class.restype = ctypes.c_void_p
    state = ctypes.c_void_p()
    while protocol := formats.avio_enum_protocols(ctypes.byref(state), 0):
        of_class = formats.avio_protocol_get_class(protocol)
        found |= set(names(of_class)) if of_class else set()
    assert {"rtsp_transport", "headers", "probesize"} <= found <= INPUT_OPTIONS
