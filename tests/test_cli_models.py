"""`weights` and `quantize` on the command line."""

import pytest


def test_weights_are_listed_with_their_licences(cli):
    code, out, _ = cli("weights", "list")
    assert code == 0
    assert "tinysam" in out
    assert "Apache-2.0" in out


def test_path_follows_the_cache(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    code, out, _ = cli("weights", "path", "tinysam")
    assert (code, out.strip()) == (0, str(tmp_path / "weights" / "tinysam_42.3.pth"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("weights", "path", "nonsense"), "no checkpoint called 'nonsense'"),
        (("weights", "import", "/nowhere.pth"), "/nowhere.pth"),
        (("quantize", "--checkpoint", "mobilesam", "--calibration", "x.mp4"), "weights get"),
        (("quantize", "--checkpoint", "a", "--calibration", "b", "--method", "guess"), "nncf"),
    ],
)
def test_bad_calls_are_one_sentence(cli, tmp_path, monkeypatch, arguments, word):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    if arguments[0] == "quantize":
        arguments = (*arguments, "-o", str(tmp_path / "out"))
    code, _, err = cli(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert word in err
