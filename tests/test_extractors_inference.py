import numpy as np
import pytest
import torch

from extractors.inference import float32_inference, resolve_device, to_array, to_tensor


def test_inference_keeps_no_gradients_and_restores_the_switches() -> None:
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
    weight = torch.ones(1, requires_grad=True)
    with float32_inference():
        assert not (weight * 2).requires_grad
        assert torch.backends.cudnn.allow_tf32 is False
        assert torch.backends.cudnn.benchmark is False
        assert torch.backends.cudnn.deterministic is True
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before
    assert (weight * 2).requires_grad


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_cuda_is_never_replaced_by_the_cpu() -> None:
    with pytest.raises(ValueError, match="got device 'cuda:0' but no CUDA device is available"):
        resolve_device("cuda:0")


def test_to_array_casts_after_the_check() -> None:
    array = to_array(torch.tensor([[1.0, -2.5]]), "float16")
    assert array.dtype == np.float16
    assert array.tolist() == [[1.0, -2.5]]
    assert to_array(torch.zeros(0, 3), "float32").shape == (0, 3)


@pytest.mark.parametrize("value", [70000.0, -70000.0, float("inf"), float("nan")])
def test_to_array_refuses_what_float16_cannot_hold(value: float) -> None:
    with pytest.raises(OverflowError, match=r"got a feature of magnitude .* at most 65504"):
        to_array(torch.tensor([0.0, value]), "float16")


def test_to_array_holds_large_values_in_float32() -> None:
    assert to_array(torch.tensor([70000.0]), "float32").tolist() == [70000.0]


def test_to_array_refuses_other_dtypes() -> None:
    with pytest.raises(ValueError, match="got dtype 'float64'"):
        to_array(torch.zeros(1), "float64")


def test_to_array_gives_bfloat16_as_torch_rounds_it() -> None:
    values = torch.tensor([[70000.0, -1 / 3]])
    array = to_array(values, "bfloat16")
    assert array.dtype.name == "bfloat16"
    assert array.astype(np.float32).tolist() == values.bfloat16().float().tolist()
    with pytest.raises(OverflowError, match="for bfloat16"):
        to_array(torch.tensor([3.4e38]), "bfloat16")


def test_to_tensor_takes_read_only_and_flipped_frames() -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    frame.flags.writeable = False
    assert to_tensor(frame).numpy().tolist() == frame.tolist()
    assert to_tensor(frame[:, ::-1]).numpy().tolist() == frame[:, ::-1].tolist()
