"""The way back: an export gives the run's vectors in the library that it is for; what it cannot hold is said."""

import json

import open_clip
import pytest
import timm
import torch
from safetensors import safe_open

from sparc_bench.cli.app import main
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.errors import UserError
from sparc_bench.models import resolve
from sparc_bench.training.export import default_out, export
from sparc_bench.training.initial_model import initial_model
from sparc_bench.training.keep_model import keep_model
from sparc_bench.training.train import train
from sparc_bench.two_towers import checkpoint
from tests.unit.training.conftest import write_mini_clip

from .test_initial_model import ITEMS, TEXTS, assert_close, library_vectors


def trained(recipe, folder):
    train(recipe, folder, None, 0, "cpu")
    return resolve.resolve(str(folder))


def vectors(resolved):
    encoder = resolve.load_encoder(resolved, Runtime())
    need = frozenset({"global", "patches"}) & encoder.gives
    return encoder.images(ITEMS, need), encoder.texts(TEXTS, frozenset({"global"}))


@pytest.mark.slow
@pytest.mark.parametrize("custom_text", [False, True])
def test_open_clip_gives_the_vectors_of_the_run(custom_text, from_clip, tmp_path, capsys):
    folder = write_mini_clip(tmp_path / "model", custom_text=custom_text)
    recipe = from_clip("sparc", init=f"open_clip:{folder}", optim={"warmup": 1, "lr": 1e-2})
    images, texts = vectors(trained(recipe, tmp_path / "run"))
    assert main(["export", str(tmp_path / "run"), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 0
    assert f"Wrote {tmp_path / 'out'}; its vectors differ from the run's by at most" in capsys.readouterr().out
    of_library = library_vectors(tmp_path / "out")
    assert_close(images.global_ND, of_library[0])
    assert_close(texts.global_MD, of_library[1])
    assert not torch.allclose(of_library[0], library_vectors(folder)[0], atol=1e-2)
    again = vectors(resolve.resolve(f"open_clip:{tmp_path / 'out'}"))
    assert_close(images.patches["local"], again[0].patches["last"])
    model = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    assert hasattr(model, "text") == custom_text
    run = resolve.load_encoder(resolve.resolve(str(tmp_path / "run")), Runtime())
    assert model.logit_scale.item() == pytest.approx(run.model.objective.log_scale.item())


@pytest.mark.slow
def test_an_export_is_a_start_again(from_clip, tmp_path):
    resolved = trained(from_clip("siglip"), tmp_path / "run")
    difference, note = export(resolved, "open_clip", tmp_path / "out")
    assert difference < 1e-5
    assert note == ""
    given = initial_model(from_clip("siglip", init=f"open_clip:{tmp_path / 'out'}")).tensors()
    there = checkpoint.model_state(checkpoint.read(resolved.weights)[1])
    assert given.keys() == there.keys()  # with the temperature, and the bias that the checkpoint before did not have
    for name, tensor in there.items():
        torch.testing.assert_close(given[name], tensor)


@pytest.mark.slow
def test_a_score_that_is_no_cosine_is_said(from_clip, tmp_path):
    _, note = export(trained(from_clip("gloria"), tmp_path / "run"), "open_clip", tmp_path / "out")
    assert note == " It is scored by cosines there, and gloria scores otherwise."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "options", "reason"),
    [
        ("pacl", {}, r"has no image vector without a text \(pacl\)"),
        ("clip", {"image_head": "gelu"}, r"has a non-linear layer before its projection"),
        ("filip", {}, r"no projections of its pooled outputs"),
    ],
)
def test_what_open_clip_cannot_express_is_refused_and_leaves_nothing(objective, options, reason, from_clip, tmp_path):
    resolved = trained(from_clip(objective, objective_options=options), tmp_path / "run")
    with pytest.raises(UserError, match=rf"{reason}.*: use --to safetensors\.$"):
        export(resolved, "open_clip", tmp_path / "out" / "deep")
    assert not list((tmp_path / "out").rglob("*.*"))
    before, _ = vectors(resolved)
    assert export(resolved, "safetensors", tmp_path / "run.safetensors")[0] == 0
    after, _ = vectors(resolve.resolve(f"own:{tmp_path / 'run.safetensors'}"))
    assert all(torch.equal(before.patches[path], after.patches[path]) for path in before.patches)


@pytest.mark.slow
def test_a_safetensors_export_has_plain_names_and_what_builds_it(tiny, tmp_path):
    resolved = trained(tiny, tmp_path / "run")
    with pytest.raises(UserError, match=r"cannot express tiny, which averages the words of a text .*: use --to safet"):
        export(resolved, "open_clip", tmp_path / "folder")
    out = tmp_path / "tiny.safetensors"
    export(resolved, "safetensors", out)
    with safe_open(out, "pt") as opened:
        towers = json.loads(opened.metadata()["towers"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert {name.partition(".")[0] for name in tensors} == {"image", "text", "heads"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    card = towers["image"]
    trunk = timm.create_model(
        *(card["model"],),
        img_size=card["size"],
        patch_size=card["patch"],
        embed_dim=card["width"],
        depth=card["depth"],
        num_heads=card["heads"],
        class_token=False,
        global_pool="",
        num_classes=0,
    )
    trunk.load_state_dict({n.removeprefix("image."): x for n, x in tensors.items() if n.startswith("image.")})
    assert checkpoint.read_meta(out) == checkpoint.read_meta(resolved.weights)


@pytest.mark.slow
def test_kept_half_precision_weights_are_exported_in_float32(tiny, tmp_path):
    train(tiny, tmp_path / "run", None, 0, "cpu")
    kept, _, steps = keep_model(tmp_path / "run", tmp_path)
    assert steps == 6
    resolved = resolve.resolve(f"own:{kept}")
    assert export(resolved, "safetensors", tmp_path / "out.safetensors")[0] == 0
    assert {x.dtype for x in checkpoint.read(kept)[1].values()} == {torch.bfloat16}
    assert {x.dtype for x in checkpoint.read(tmp_path / "out.safetensors")[1].values()} == {torch.float32}


@pytest.mark.slow
def test_what_is_there_is_not_written_over(tiny, mini_clip, tmp_path, capsys):
    resolved = trained(tiny, tmp_path / "run")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there is there already: name another with --out, or remove it"):
        export(resolved, "safetensors", tmp_path / "there")
    assert default_out(resolved, "safetensors").name == "tiny.safetensors"
    assert main(["export", f"open_clip:{mini_clip}", "--to", "open_clip", "--out", str(tmp_path / "x")]) == 2
    assert "was not trained here, so that there is nothing to convert: name a run folder." in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "run" / own.WEIGHTS_FILE).is_file()
