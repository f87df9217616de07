"""bf16 autocast beside fp32, on the CPU and, where there is one, on a GPU: the maps of the trunk in one forward pass, the loss and the gradient of one training step. And a GPU's maps beside the CPU's, and a training step beside itself: the same bits on the CPU, nearly the same on a GPU.

The two steps draw the same random numbers, but a score that moves by a last bit may put another box among those that are sampled: their gradients point the same way, they are not the same.
"""
import copy

import pytest, torch

from meld_nb.core import set_seed
from meld_nb.variants import make_model

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
MAPS, LOSS, COSINE = .03, .03, .9        # root mean square over the maps' deviation; relative; of the two gradients
AGAIN = 1e-3                             # of the loss, and of the gradient's length, on a GPU: it sums in the order in which its threads end


@pytest.fixture(scope="module")
def step():
    "A detector, images [9,64,64] of HU-like noise with a bright disc, and targets."
    set_seed(0, "precision")
    y, x = torch.meshgrid(torch.arange(64.), torch.arange(64.), indexing="ij")
    disc = ((x - 28)**2 + (y - 36)**2 < 64).float()
    images = [40*torch.randn(9, 64, 64) + 60*disc for _ in range(4)]
    target = dict(boxes=torch.tensor([[20., 28, 36, 44]]), roles=torch.zeros(1, dtype=torch.long), organ=torch.rand(1, 3), masks=disc[None].byte(), has_mask=torch.ones(1, dtype=torch.bool))
    return make_model("meld", "narrow"), images, [target | dict(dataset=d) for d in ("deeplesion", "luna16", "lits", "nih_ln")]


def trained(step, device, precision):
    "Losses and gradient of one step."
    model, images, targets = step
    net = copy.deepcopy(model).to(device).train()
    to = lambda t: {k: v.to(device) if torch.is_tensor(v) else v for k, v in t.items()}
    set_seed(0, "step")
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"): losses = net([i.to(device) for i in images], list(map(to, targets)))
    total = sum(losses.values())
    total.backward()
    return float(total.detach()), torch.cat([p.grad.float().flatten().cpu() for p in net.parameters() if p.grad is not None])


def maps(step, device, precision="fp32"):
    net = copy.deepcopy(step[0]).to(device).eval()
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"): return net.trunk(step[1][0][None].to(device)).float().cpu()


def apart(a, b): return float(((b - a)**2).mean().sqrt()/a.std())


@pytest.mark.parametrize("device", DEVICES)
def test_maps_in_bf16(step, device): assert 0 < apart(*(maps(step, device, p) for p in ("fp32", "bf16"))) <= MAPS


@GPU
def test_maps_of_a_gpu(step): assert apart(*(maps(step, d) for d in ("cpu", "cuda"))) <= MAPS


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_in_bf16(step, device):
    (loss, grad), (half_loss, half_grad) = (trained(step, device, p) for p in ("fp32", "bf16"))
    assert 0 < abs(loss - half_loss) <= LOSS*abs(loss), (loss, half_loss)
    assert torch.nn.functional.cosine_similarity(grad, half_grad, dim=0) >= COSINE


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_again(step, device):
    (loss, grad), (again, grad_again) = (trained(step, device, "fp32") for _ in range(2))
    if device == "cpu": assert loss == again and torch.equal(grad, grad_again)
    else: assert abs(loss - again) <= AGAIN*abs(loss) and (grad - grad_again).norm() <= AGAIN*grad.norm()
