import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from octo_folder import Bfloat16, Chunked, octo_json, pack, write_folder
from torch import Tensor

from hildaft.models.octo import Octo, OctoConfig
from hildaft.models.octo_checkpoint import OctoCheckpoint, load_octo_checkpoint
from hildaft.models.octo_head import noise_schedule, unnormalise_action
from hildaft.models.t5 import build_t5, run_t5
from hildaft.types import HilDaftError

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "octo_tiny_random.npz"
CASES = ["text", "pad_first", "window1", "goal", "v1_style"]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    path = GOLDEN if GOLDEN.is_file() else None
    if path is None:
        pytest.skip("the golden vectors of the original Octo lie beside the checkout, not here")
    with np.load(path) as file:
        return dict(file)


def golden_json(golden: dict[str, np.ndarray], version: str) -> dict:
    stored = json.loads(str(golden["config/json"]))
    return octo_json(
        width=stored["token_embedding_size"],
        layers=stored["num_layers"],
        heads=stored["num_attention_heads"],
        mlp_dim=stored["mlp_dim"],
        horizon=stored["max_horizon"],
        features=stored["stem_features"],
        num_features=stored["stem_num_features"],
        head=stored["head"],
        version=version,
    )


@pytest.fixture(scope="module")
def loaded(golden, tmp_path_factory) -> dict[str, OctoCheckpoint]:
    """Versions 1.5 and 1.0 of the golden parameters, written and loaded."""
    parameters = {k.removeprefix("params/"): v for k, v in golden.items() if k[:7] == "params/"}
    found = {}
    for version in ("1.5", "1.0"):
        folder = tmp_path_factory.mktemp("octo") / version
        write_folder(folder, golden_json(golden, version), parameters)
        found[version] = load_octo_checkpoint(str(folder))
    return found


def inputs(golden, case: str, dtype: torch.dtype, language: Tensor) -> tuple:
    steps = torch.from_numpy(golden[f"case/{case}/timestep_pad_mask"])
    images = {}
    for camera in ("primary", "wrist"):
        image = torch.from_numpy(golden[f"input/image_{camera}"])[:, -steps.shape[1] :]
        goal = torch.from_numpy(golden[f"input/goal_image_{camera}"])[:, None].expand_as(image)
        goal = goal if case == "goal" else torch.zeros_like(image)
        both = torch.cat([image, goal], -1).permute(0, 1, 4, 2, 3)
        images[camera] = both.to(dtype) / 127.5 - 1
    mask = torch.from_numpy(golden[f"case/{case}/mask/task_language"])
    return images, language.to(dtype), mask, steps


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_checkpoint_gives_the_originals_numbers_from_token_ids(golden, loaded, case):
    checkpoint = loaded["1.0" if case == "v1_style" else "1.5"]
    t5 = build_t5(checkpoint.t5_sizes, checkpoint.t5_tensors)
    ids, mask = (
        torch.from_numpy(golden[f"input/{n}"]).long() for n in ("input_ids", "attention_mask")
    )
    language = run_t5(t5, ids, mask)
    expected = torch.from_numpy(golden["case/text/inter/t5_last_hidden_state"])
    torch.testing.assert_close(language, expected, atol=2e-5, rtol=0)
    with torch.inference_mode():
        single = checkpoint.octo(*inputs(golden, case, torch.float32, language))
        double = checkpoint.octo.double()(*inputs(golden, case, torch.float64, expected))
    checkpoint.octo.float()
    for tokens, key, tolerance in ((single, "tokens", 1e-4), (double, "tokens64", 1e-7)):
        wanted = torch.from_numpy(golden[f"case/{case}/{key}/readout_action"])
        torch.testing.assert_close(tokens.readout, wanted, atol=tolerance, rtol=0)
        for camera in tokens.cameras:
            name = f"case/{case}/{key}/obs_{camera}"
            if name in golden:
                wanted = torch.from_numpy(golden[name])
                torch.testing.assert_close(tokens.cameras[camera], wanted, atol=tolerance, rtol=0)


def test_the_head_predicts_and_samples_as_the_original(golden, loaded):
    head = loaded["1.5"].head
    assert head is not None
    get = lambda name: torch.from_numpy(golden[f"head/{name}"])  # noqa: E731
    betas = noise_schedule(20)
    torch.testing.assert_close(betas, get("schedule/betas"), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        (1 - betas).cumprod(0), get("schedule/alpha_hats"), atol=1e-6, rtol=0
    )
    readout = torch.from_numpy(golden["case/text/tokens/readout_action"]).mean(2)
    with torch.inference_mode():
        predicted = head(readout, get("eps/noisy_actions"), get("eps/time"))
        torch.testing.assert_close(predicted, get("eps/pred"), atol=1e-4, rtol=0)
        start, noise = get("sample/noise_init")[:, -1], get("sample/z")[:, :, -1]
        actions = head.sample(readout[:, -1], start, noise)
        torch.testing.assert_close(actions, get("sample/actions"), atol=5e-4, rtol=0)
        fewer = head.sample(readout[:, -1], start, noise, action_dim=5)
    # What the robot has not is the noise of training at the last step, times the noise there.
    expected = noise_schedule(20)[0].sqrt() * noise[-1].unflatten(-1, (4, 7))[..., 5:]
    torch.testing.assert_close(fewer[..., 5:], expected)
    assert (fewer[..., :5] - actions[..., :5]).abs().max() > 1e-4


SIZES = {"width": 8, "layers": 2, "heads": 2, "mlp_dim": 12, "horizon": 3}
HEAD = {
    "action_horizon": 2,
    "action_dim": 3,
    "time_dim": 4,
    "hidden_dim": 6,
    "num_blocks": 1,
    "diffusion_steps": 5,
}


def small_json(**changes) -> dict:
    sizes = {**SIZES, "features": [32, 32, 32, 32], "num_features": 5, "head": HEAD}
    return octo_json(**{**sizes, **changes})


def small_arrays(
    readouts: dict[str, int] | None = None, *, layers: int = 2, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random parameters of a small Octo under their published names; cameras of 64 and 32 px, no T5."""
    rng, arrays = np.random.default_rng(seed), {}

    def add(name: str, *shape: int) -> None:
        arrays[name] = rng.standard_normal(shape).astype(np.float32) * 0.3

    def dense(name: str, inside: int, outside: int) -> None:
        add(f"{name}/kernel", inside, outside)
        add(f"{name}/bias", outside)

    def norm(name: str, width: int) -> None:
        add(f"{name}/scale", width)
        add(f"{name}/bias", width)

    root = "octo_transformer"
    for camera, tokens in (("primary", 16), ("wrist", 4)):
        stem = f"{root}/observation_tokenizers_{camera}/SmallStem16_0"
        for i, inside in enumerate((6, 32, 32, 32)):
            add(f"{stem}/StdConv_{i}/kernel", 3, 3, inside, 32)
            add(f"{stem}/StdConv_{i}/bias", 32)
            norm(f"{stem}/GroupNorm_{i}", 32)
        add(f"{stem}/embedding/kernel", 1, 1, 32, 5)
        add(f"{stem}/embedding/bias", 5)
        dense(f"{root}/obs_{camera}_projection", 5, 8)
        add(f"{root}/obs_{camera}_pos_embedding", 1, 3, tokens, 8)
    for name, count in (readouts or {"action": 1}).items():
        add(f"{root}/readout_{name}_pos_embedding", 1, 3, count, 8)
    add(f"{root}/task_language_pos_embedding", 1, 4, 8)
    dense(f"{root}/task_language_projection", 7, 8)
    for i in range(layers):
        block = f"{root}/BlockTransformer_0/Transformer_0/encoderblock_{i}"
        for part in ("query", "key", "value"):
            add(f"{block}/MultiHeadDotProductAttention_0/{part}/kernel", 8, 2, 4)
            add(f"{block}/MultiHeadDotProductAttention_0/{part}/bias", 2, 4)
        add(f"{block}/MultiHeadDotProductAttention_0/out/kernel", 2, 4, 8)
        add(f"{block}/MultiHeadDotProductAttention_0/out/bias", 8)
        norm(f"{block}/LayerNorm_0", 8)
        norm(f"{block}/LayerNorm_1", 8)
        dense(f"{block}/MlpBlock_0/Dense_0", 8, 12)
        dense(f"{block}/MlpBlock_0/Dense_1", 12, 8)
    norm(f"{root}/BlockTransformer_0/Transformer_0/encoder_norm", 8)
    diffusion = "heads_action/diffusion_model"
    add(f"{diffusion}/time_preprocess/kernel", 2, 1)
    dense(f"{diffusion}/cond_encoder/Dense_0", 4, 8)
    dense(f"{diffusion}/cond_encoder/Dense_1", 8, 4)
    dense(f"{diffusion}/reverse_network/Dense_0", 4 + 8 + 6, 6)
    norm(f"{diffusion}/reverse_network/MLPResNetBlock_0/LayerNorm_0", 6)
    dense(f"{diffusion}/reverse_network/MLPResNetBlock_0/Dense_0", 6, 24)
    dense(f"{diffusion}/reverse_network/MLPResNetBlock_0/Dense_1", 24, 6)
    dense(f"{diffusion}/reverse_network/Dense_1", 6, 6)
    return arrays


def small_inputs(octo: Octo, window: int = 2) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    images = {name: torch.rand(2, window, 6, s, s) * 2 - 1 for name, s in octo.config.cameras}
    ones = torch.ones(2, window).bool()
    return images, torch.randn(2, 4, 7), torch.ones(2, 4).bool(), ones


def test_every_way_of_storing_an_array_gives_the_same_model(tmp_path):
    arrays = small_arrays()
    plain = load_octo_checkpoint(str(write_folder(tmp_path / "plain", small_json(), arrays)))
    half = {name: Bfloat16(array) for name, array in arrays.items()}
    halves = load_octo_checkpoint(str(write_folder(tmp_path / "half", small_json(), half)))
    pieces = {name: Chunked(array, 7) for name, array in arrays.items()}
    chunked = load_octo_checkpoint(str(write_folder(tmp_path / "pieces", small_json(), pieces)))
    wrapped = {f"params/{name}": array for name, array in arrays.items()}
    inside = load_octo_checkpoint(str(write_folder(tmp_path / "inside", small_json(), wrapped)))
    for name, value in plain.octo.state_dict().items():
        assert torch.equal(chunked.octo.state_dict()[name], value)
        assert torch.equal(inside.octo.state_dict()[name], value)
        torch.testing.assert_close(halves.octo.state_dict()[name], value, rtol=1e-2, atol=1e-6)
    assert len({c.hash for c in (plain, halves, chunked)}) == 3
    assert plain.octo.config.cameras == (("primary", 64), ("wrist", 32))
    assert (plain.window, plain.step, plain.tokenizer, plain.t5_sizes) == (
        2,
        300_000,
        "t5-base",
        {},
    )


def test_versions_take_their_switches_from_the_config(tmp_path):
    old = small_json(version="1.0")
    model = load_octo_checkpoint(str(write_folder(tmp_path / "old", old, small_arrays())))
    new = load_octo_checkpoint(str(write_folder(tmp_path / "new", small_json(), small_arrays())))
    config = model.octo.config
    assert (config.repeat_language, config.correct_attention) == (False, False)
    assert (new.octo.config.repeat_language, new.octo.config.correct_attention) == (True, True)
    assert model.head is not None
    assert model.head.config == new.head.config
    assert model.hash != new.hash


def test_the_last_step_is_loaded_unless_another_is_asked_for(tmp_path):
    folder = write_folder(tmp_path / "octo", small_json(), small_arrays(), step=900)
    second = folder / "1000" / "default"
    second.mkdir(parents=True)
    shutil.copy(folder / "900" / "default" / "checkpoint", second / "checkpoint")
    assert load_octo_checkpoint(str(folder)).step == 1000
    assert load_octo_checkpoint(str(folder), 900).step == 900
    with pytest.raises(
        HilDaftError, match=r"7/default/checkpoint is missing \(steps there: 900, 1000"
    ):
        load_octo_checkpoint(str(folder), 7)


def test_missing_extra_and_misshapen_parameters_are_all_named(tmp_path):
    arrays = small_arrays()
    del arrays["octo_transformer/task_language_projection/bias"]
    arrays["octo_transformer/obs_third_projection/bias"] = np.zeros(8, np.float32)
    name = "octo_transformer/BlockTransformer_0/Transformer_0/encoder_norm/scale"
    arrays[name] = np.zeros(9, np.float32)
    folder = write_folder(tmp_path / "octo", small_json(), arrays)
    with pytest.raises(HilDaftError) as caught:
        load_octo_checkpoint(str(folder))
    text = str(caught.value)
    assert "missing: octo_transformer/task_language_projection/bias" in text
    assert "left over: octo_transformer/obs_third_projection/bias" in text
    assert f"of another shape: {name} (9,) instead of (8,)" in text
    assert "\n" not in text


def changed(path: tuple[str, ...], value: object) -> dict:
    config = small_json()
    tree = config["model"]
    for name in path[:-1]:
        tree = tree[name]
    tree[path[-1]] = value
    return config


STEM = ("observation_tokenizers", "wrist", "kwargs")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("token_embedding_size",), "8", "model.token_embedding_size"),
        (("token_embedding_size",), 10**9, "1 to 1048576"),
        (("transformer_kwargs", "num_layers"), 10**9, "num_layers"),
        (("transformer_kwargs", "num_layers"), 3, "encoderblock_2"),
        (("transformer_kwargs", "mlp_dim"), 10**6, "of another shape"),
        (("max_horizon",), None, "model.max_horizon"),
        (("readouts",), {"action": "many"}, "model.readouts"),
        (("readouts",), {}, "model.readouts"),
        (("task_tokenizers",), {"language": {}, "sound": {}}, "model.task_tokenizers"),
        (("observation_tokenizers", "wrist", "name"), "LowdimObsTokenizer", "LowdimObsTokenizer"),
        ((*STEM, "encoder", "name"), "ResNet26FILM", "ResNet26FILM"),
        ((*STEM, "encoder", "kwargs", "use_film"), True, "use_film"),
        ((*STEM, "encoder", "kwargs", "features"), [32, 32], "features"),
        ((*STEM, "obs_stack_keys"), ["image_wrist", "depth_wrist"], "obs_stack_keys"),
        (("heads", "action", "kwargs", "readout_key"), "readout_value", "readout_key"),
        (("heads", "action", "kwargs", "num_blocks"), 10**9, "num_blocks"),
    ],
)
def test_configs_this_port_cannot_follow_are_named(tmp_path, path, value, told):
    folder = write_folder(tmp_path / "octo", changed(path, value), small_arrays())
    with pytest.raises(HilDaftError, match=told):
        load_octo_checkpoint(str(folder))


def test_another_head_is_left_out_and_h_stays(tmp_path):
    config = changed(("heads", "action", "name"), "L1ActionHead")
    with_head = load_octo_checkpoint(
        str(write_folder(tmp_path / "a", small_json(), small_arrays()))
    )
    without = load_octo_checkpoint(str(write_folder(tmp_path / "b", config, small_arrays())))
    assert without.head is None
    given = small_inputs(with_head.octo)
    assert torch.equal(with_head.octo(*given).h, without.octo(*given).h)


@pytest.mark.parametrize("name", ["config.json", "dataset_statistics.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_damaged_json_is_refused(tmp_path, name, content):
    folder = write_folder(tmp_path / "octo", small_json(), small_arrays())
    (folder / name).write_text(content)
    with pytest.raises(HilDaftError, match=name):
        load_octo_checkpoint(str(folder))
    (folder / name).unlink()
    with pytest.raises(HilDaftError, match="No such file"):
        load_octo_checkpoint(str(folder))


def test_truncated_parameters_are_refused(tmp_path):
    folder = write_folder(tmp_path / "octo", small_json(), small_arrays())
    path = folder / "300000" / "default" / "checkpoint"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(HilDaftError, match="truncated"):
        load_octo_checkpoint(str(folder))
    path.write_bytes(pack({}))
    with pytest.raises(HilDaftError, match="missing"):
        load_octo_checkpoint(str(folder))


def test_names_that_are_no_checkpoint_are_refused(tmp_path, monkeypatch):
    with pytest.raises(HilDaftError, match="no such folder"):
        load_octo_checkpoint(str(tmp_path / "nowhere" / "at" / "all"))
    with pytest.raises(HilDaftError, match="octo-small, octo-base"):
        load_octo_checkpoint("octo-smal")
    import huggingface_hub

    def unreachable(name: str, **_: object) -> str:
        msg = f"{name} is out of reach"
        raise ConnectionError(msg)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        HilDaftError, match=r"rail-berkeley/octo-small-1.5.*out of reach.*its folder"
    ):
        load_octo_checkpoint("octo-small")
    folder = write_folder(tmp_path / "octo", small_json(), small_arrays())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    assert load_octo_checkpoint("hf://some/octo").step == 300_000


@pytest.mark.parametrize("version", ["1.5", "1.0"])
def test_cameras_may_be_missing_or_masked(tmp_path, version):
    folder = write_folder(tmp_path / "octo", small_json(version=version), small_arrays())
    octo = load_octo_checkpoint(str(folder)).octo
    images, language, mask, steps = small_inputs(octo)
    both = octo(images, language, mask, steps)
    alone = octo({"primary": images["primary"]}, language, mask, steps)
    hidden = octo(images, language, mask, steps, {"wrist": ~steps})
    assert alone.cameras.keys() == {"primary"}
    assert (alone.h - both.h).abs().max() > 1e-3
    if version == "1.5":
        # Keys that may not be looked at are as good as absent. Version 1.0 counts tokens in groups and differs.
        torch.testing.assert_close(hidden.h, alone.h, atol=1e-5, rtol=0)
    images["wrist"] = images["wrist"].clone()
    images["wrist"][:, 0] += 0.3
    first = octo(images, language, mask, steps, {"wrist": torch.tensor([[False, True]] * 2)})
    images["wrist"][:, 0] += 0.3
    again = octo(images, language, mask, steps, {"wrist": torch.tensor([[False, True]] * 2)})
    torch.testing.assert_close(first.h, again.h)


def test_without_language_the_images_alone_are_read(tmp_path):
    octo = load_octo_checkpoint(
        str(write_folder(tmp_path / "o", small_json(), small_arrays()))
    ).octo
    images, language, mask, steps = small_inputs(octo)
    none = octo(images, language[:, :0], mask[:, :0], steps)
    masked = octo(images, language, mask & False, steps)
    torch.testing.assert_close(none.h, masked.h, atol=1e-5, rtol=0)
    assert none.language.shape == (2, 0, 8)
    with pytest.raises(HilDaftError, match="octo window=4: 1 to max_horizon=3"):
        octo(*small_inputs(octo, 4))


@pytest.mark.parametrize("version", ["1.5", "1.0"])
def test_a_second_readout_is_loaded_and_changes_nothing_it_must_not(tmp_path, version):
    readouts = {"action": 2, "value": 3}
    config = small_json(version=version, readouts=readouts)
    folder = write_folder(tmp_path / "two", config, small_arrays(readouts))
    octo = load_octo_checkpoint(str(folder)).octo
    assert (octo.config.readouts, octo.config.other_readouts) == (2, (("value", 3),))
    given = small_inputs(octo)
    with torch.inference_mode():
        tokens = octo(*given)
        assert tokens.others["value"].shape == (2, 2, 3, 8)
        torch.testing.assert_close(octo.embed(*given), tokens.h)
        octo.other_positions["value"] += torch.randn(3, 3, 8)
        after = octo(*given)
    change = (after.h - tokens.h).abs().max()
    assert change < 1e-6 if version == "1.5" else change > 1e-3
    assert (after.others["value"] - tokens.others["value"]).abs().max() > 1e-3


def test_readouts_keep_their_order_under_the_old_mask(tmp_path):
    readouts = {"value": 1, "action": 1}
    folder = write_folder(tmp_path / "new", small_json(readouts=readouts), small_arrays(readouts))
    assert load_octo_checkpoint(str(folder)).octo.config.other_readouts == (("value", 1),)
    old = small_json(readouts=readouts, version="1.0")
    folder = write_folder(tmp_path / "old", old, small_arrays(readouts))
    with pytest.raises(HilDaftError, match=r"model.readouts.*as the first"):
        load_octo_checkpoint(str(folder))


def test_hostile_names_of_cameras_are_refused(tmp_path):
    config = small_json()
    tokenizers = config["model"]["observation_tokenizers"]
    tokenizers["a.b"] = tokenizers.pop("wrist")
    folder = write_folder(tmp_path / "octo", config, small_arrays())
    with pytest.raises(HilDaftError, match="a name in letters"):
        load_octo_checkpoint(str(folder))


def test_actions_are_unnormalised_where_the_mask_says():
    action = np.array([[0.5, -1.0, 0.25]], np.float32)
    normal = {"mean": [1.0, 2.0], "std": [2.0, 4.0], "mask": [True, False]}
    np.testing.assert_allclose(unnormalise_action(action, normal), [[2.0, -1.0]])
    bounds = {"p01": [0.0, -1.0, -2.0], "p99": [1.0, 1.0, 2.0]}
    np.testing.assert_allclose(unnormalise_action(action, bounds, "bounds"), [[0.75, -1.0, 0.5]])
    with pytest.raises(HilDaftError, match="p01 and p99"):
        unnormalise_action(action, normal, "bounds")


def test_released_sizes_have_the_released_number_of_parameters():
    for config, millions in (
        (OctoConfig(), 27.04 - 1.70),
        (OctoConfig(width=768, mlp_dim=3072, heads=12), 92.83 - 1.80),
    ):
        with torch.device("meta"):
            octo = Octo(config)
        found = sum(parameter.numel() for parameter in octo.parameters()) / 1e6
        assert abs(found - millions) < 0.02
