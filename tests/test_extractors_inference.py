import numpy as np
import pytest
import torch

from extractors.inference import (
    check_precision,
    is_out_of_memory,
    memory_format_3d,
    network_inference,
    resolve_device,
    to_array,
    to_tensor,
)

CPU = torch.device("cpu")


def switches() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        cudnn.allow_tf32,
        cudnn.benchmark,
        cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
    )


def test_inference_sets_the_switches_and_puts_them_back() -> None:
    before = switches()
    with network_inference("float32", CPU):
        assert switches() == (False, True, True, False, "highest", False, False)
        assert torch.is_inference_mode_enabled()
    assert switches() == before
    with network_inference("bfloat16", CPU, fixed_shapes=False):
        assert switches() == (False, False, True, False, "highest", True, False)
        with network_inference("float32", CPU):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")
    with pytest.raises(KeyError), network_inference("float32", CPU):
        raise KeyError
    assert switches() == before


def test_float32_is_exact_whatever_the_process_allows() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with network_inference("float32", CPU):
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")],
)
def test_precisions_run_on_a_cpu(precision: str, dtype: str) -> None:
    network = torch.nn.Conv3d(2, 3, 3)
    x = torch.randn(1, 2, 4, 5, 5)
    with network_inference(precision, CPU):
        got = network(x)
    assert str(got.dtype) == f"torch.{dtype}"
    assert not got.requires_grad
    torch.testing.assert_close(got.float(), network(x).detach(), rtol=0, atol=0.02)


def test_precisions_that_cannot_be_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="got precision 'tf32' on cpu, expected a CUDA device"),
        network_inference("tf32", CPU),
    ):
        pass
    check_precision("tf32", torch.device("meta"))
    with pytest.raises(ValueError, match="got precision 'double', expected one of float32, tf32"):
        check_precision("double", CPU)


@pytest.mark.needs_cuda
def test_tf32_only_where_it_is_asked_for() -> None:
    device = torch.device("cuda")
    if torch.cuda.get_device_capability() < (8, 0):
        with pytest.raises(ValueError, match=r"capability 8\.0"):
            check_precision("tf32", device)
        return
    network = torch.nn.Conv3d(64, 64, 3).to(device)
    x = torch.randn(1, 64, 8, 32, 32, device=device)
    product = torch.randn(512, 512, device=device)
    exact = torch.nn.functional.conv3d(x.double(), network.weight.double(), network.bias.double())
    errors = {}
    for precision in ("float32", "tf32"):
        with network_inference(precision, device):
            convolved, multiplied = network(x), product @ product
        errors[precision] = (
            float((convolved - exact).abs().max()),
            float((multiplied - product.double() @ product.double()).abs().max()),
        )
    assert max(errors["float32"]) < 1e-3
    assert min(errors["tf32"]) > 3e-4
    assert all(a * 5 < b for a, b in zip(errors["float32"], errors["tf32"], strict=True))


def test_layout_follows_precision_and_device() -> None:
    last, first = torch.channels_last_3d, torch.contiguous_format
    assert memory_format_3d("float32", CPU) is last
    assert memory_format_3d("bfloat16", torch.device("cuda")) is last
    assert memory_format_3d("float32", torch.device("cuda:1")) is first


def test_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**52)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(other.value)
    assert not is_out_of_memory(ValueError("out of memory"))


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
