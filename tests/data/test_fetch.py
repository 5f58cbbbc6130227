"""Real meshes out of the pinned package. The first run on a machine downloads it into the cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dibr_deploy.data import fetch, fetch_meshes
from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import read_mesh


def test_meshes_come_upright_with_their_colors(tmp_path: Path) -> None:
    written = fetch_meshes(tmp_path / "meshes", objects=["duck", "mug", "teddy"], random=2)
    names = ["duck.glb", "mug.glb", "teddy.glb", "random_000.glb", "random_001.glb"]
    assert [path.name for path in written] == names
    duck, mug, teddy, *random = (read_mesh(path) for path in written)
    assert len(duck.faces) == 4212
    assert duck.texture is not None
    assert duck.texture.shape == (3, 512, 512)
    assert len(teddy.faces) == 2432
    for mesh in (mug, teddy, *random):
        assert mesh.vertex_colors is not None
    size = mug.vertices.amax(dim=0) - mug.vertices.amin(dim=0)
    torch.testing.assert_close(size, torch.tensor([0.082, 0.1, 0.1216]), rtol=0, atol=1e-3)


def test_all_random_objects_can_be_had(tmp_path: Path) -> None:
    """Number 168 of the package is all NaN: it is left out, and there are as many as asked for."""
    written = fetch_meshes(tmp_path, objects=[], random=fetch.RANDOM_OBJECTS)
    assert [path.stem for path in written] == [f"random_{i:03d}" for i in range(1000) if i != 168]
    assert all(read_mesh(path).vertices.isfinite().all() for path in written)


def test_what_it_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=r"objects must be among bunny, .*, got teapot"):
        fetch_meshes(tmp_path, objects=["teapot"])
    with pytest.raises(DibrError, match="random must lie between 0 and 999, got 1000"):
        fetch_meshes(tmp_path, random=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is replaced by something that writes another wheel."""
    monkeypatch.setenv(fetch.CACHE_VARIABLE, str(tmp_path / "cache"))

    def other_wheel(command: list[str], **_: object) -> object:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "pybullet-3.2.7-cp311-none-any.whl").write_bytes(b"something else")
        return type("Result", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(fetch.subprocess, "run", other_wheel)
    with pytest.raises(DibrError, match="must have SHA-256 5d858abf"):
        fetch_meshes(tmp_path / "meshes")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_failed_download_gives_pips_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetch.CACHE_VARIABLE, str(tmp_path / "cache"))
    failed = type("Result", (), {"returncode": 1, "stderr": "WARNING: slow\nERROR: No matching distribution found\n"})
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(DibrError, match=r"could not download pybullet==3\.2\.7: ERROR: No matching distribution found"):
        fetch_meshes(tmp_path / "meshes")
    assert list((tmp_path / "cache").iterdir()) == []
